create or replace function rustygpt.api_is_setup() returns boolean
language sql stable as $$ select rustygpt.has_users() $$;

create or replace function rustygpt.has_users() returns boolean
language sql stable as $$ select exists (select 1 from rustygpt.users) $$;

create or replace function rustygpt.create_user(
    p_username text, p_email text, p_password_hash text, p_display_name text, p_is_admin boolean
) returns uuid language plpgsql volatile as $$
declare
    new_id uuid := rustygpt.uuid_v7();
begin
    insert into rustygpt.users (id, username, email, password_hash, display_name, is_admin)
    values (new_id, p_username, p_email, p_password_hash, p_display_name, p_is_admin);
    perform rustygpt.open_channel(new_id, 'user');
    insert into rustygpt.presence (user_id) values (new_id);
    return new_id;
exception when unique_violation then
    perform rustygpt.fail(409, 'RGP.USER.EXISTS', 'This e-mail address or username is taken.');
end
$$;

-- The first account, an administrator. Of two concurrent calls one wins and the other gets 409.
create or replace function rustygpt.api_setup(p_username text, p_email text, p_password_hash text) returns json
language plpgsql volatile as $$
declare
    new_id uuid;
begin
    perform pg_advisory_xact_lock(hashtext('rustygpt.setup'));
    if rustygpt.has_users() then
        perform rustygpt.fail(409, 'RGP.SETUP.DONE', 'This service is set up already. Sign in.');
    end if;
    new_id := rustygpt.create_user(p_username, p_email, p_password_hash, null, true);
    return json_build_object('user', rustygpt.user_json(new_id));
end
$$;

-- For the password check, which happens outside the database. Null when there is no such account.
create or replace function rustygpt.api_login_lookup(p_identifier text) returns json
language sql stable as $$ select rustygpt.login_lookup(p_identifier) $$;

create or replace function rustygpt.login_lookup(p_identifier text) returns json
language sql stable as $$
    select json_build_object('user_id', id, 'password_hash', password_hash)
      from rustygpt.users
     where lower(email) = lower(p_identifier) or lower(username) = lower(p_identifier)
     order by lower(email) = lower(p_identifier) desc limit 1
$$;

-- Opens a session after the password was checked; the oldest beyond p_keep end.
create or replace function rustygpt.api_open_session(
    p_user_id uuid, p_token_hash bytea, p_csrf_token text, p_idle interval, p_absolute interval, p_keep integer
) returns json language plpgsql volatile as $$
begin
    perform rustygpt.store_session(p_user_id, p_token_hash, p_csrf_token, p_idle, p_absolute, p_keep);
    return rustygpt.session_json(p_token_hash);
end
$$;

create or replace function rustygpt.store_session(
    p_user_id uuid, p_token_hash bytea, p_csrf_token text, p_idle interval, p_absolute interval, p_keep integer
) returns void language plpgsql volatile as $$
begin
    insert into rustygpt.sessions (token_hash, user_id, csrf_token, expires_at, absolute_expires_at)
    values (p_token_hash, p_user_id, p_csrf_token, now() + p_idle, now() + p_absolute);
    delete from rustygpt.sessions where token_hash in (
        select token_hash from rustygpt.sessions where user_id = p_user_id order by created_at desc offset p_keep);
    perform rustygpt.session_user_id(p_token_hash);   -- refuses a disabled account
end
$$;

create or replace function rustygpt.session_json(p_token_hash bytea) returns json
language sql stable as $$
    select json_build_object(
        'user', rustygpt.user_json(user_id),
        'session', json_build_object(
            'issued_at', rustygpt.instant(created_at), 'expires_at', rustygpt.instant(expires_at),
            'absolute_expires_at', rustygpt.instant(absolute_expires_at)),
        'csrf_token', csrf_token)
      from rustygpt.sessions where token_hash = p_token_hash
$$;

create or replace function rustygpt.api_me(p_session bytea, p_idle interval) returns json
language plpgsql volatile as $$
begin
    perform rustygpt.sign_in(p_session);
    perform rustygpt.touch_session(p_session, p_idle);
    return rustygpt.session_json(p_session);
end
$$;

create or replace function rustygpt.api_logout(p_session bytea) returns json
language plpgsql volatile as $$
begin
    perform rustygpt.sign_in(p_session);
    perform rustygpt.end_session(p_session);
    return json_build_object('ok', true);
end
$$;

create or replace function rustygpt.end_session(p_session bytea) returns void
language sql volatile as $$ delete from rustygpt.sessions where token_hash = p_session $$;

-- For what is outside the database and only administrators may see.
create or replace function rustygpt.api_require_admin(p_session bytea) returns void
language plpgsql volatile as $$
begin
    perform rustygpt.sign_in(p_session);
    perform rustygpt.require_admin();
end
$$;

create or replace function rustygpt.api_create_user(
    p_session bytea, p_once text[], p_username text, p_email text, p_password_hash text, p_display_name text, p_is_admin boolean
) returns json language plpgsql volatile as $$
declare
    actor uuid := rustygpt.sign_in(p_session);
    replay json := rustygpt.recall(actor, p_once);
    new_id uuid;
begin
    if replay is not null then
        return replay;
    end if;
    perform rustygpt.require_admin();
    new_id := rustygpt.create_user(p_username, p_email, p_password_hash, p_display_name, p_is_admin);
    return rustygpt.remember(actor, p_once, rustygpt.user_json(new_id));
end
$$;

-- People to invite: those whose name begins with p_query.
create or replace function rustygpt.api_find_users(p_session bytea, p_query text) returns json
language plpgsql volatile as $$
begin
    perform rustygpt.sign_in(p_session);
    return json_build_object('users', coalesce((
        select json_agg(json_build_object('id', id, 'username', username, 'display_name', display_name)
                        order by username)
          from (select * from (select id, username, display_name, disabled_at from rustygpt.users) u
                 where disabled_at is null
                   and (starts_with(lower(username), lower(p_query)) or starts_with(lower(display_name), lower(p_query)))
                 order by username limit 20) found), '[]'::json));
end
$$;
