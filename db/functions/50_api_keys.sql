-- Who is signed in, for a request whose work is done outside the database.
create or replace function rustygpt.api_session_user(p_session bytea, p_idle interval) returns uuid
language plpgsql volatile as $$
begin
    perform rustygpt.sign_in(p_session);
    perform rustygpt.touch_session(p_session, p_idle);
    return rustygpt.actor_id();
end
$$;
