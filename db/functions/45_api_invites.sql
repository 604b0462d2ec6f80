-- The token's hash is in the answer, for the Gateway alone: it says whether the token that it holds is the one that
-- this invitation, made now or by an earlier request with the same key, is opened by.
create or replace function rustygpt.api_create_invite(
    p_session bytea, p_once text[], p_conversation_id uuid, p_email text, p_role rustygpt.conversation_role,
    p_token_hash bytea, p_ttl interval
) returns json language plpgsql volatile as $$
declare
    actor uuid := rustygpt.sign_in(p_session);
    replay json := rustygpt.recall(actor, p_once);
    new_id uuid := rustygpt.uuid_v7();
begin
    if replay is not null then
        return replay;
    end if;
    perform rustygpt.lock_conversation(p_conversation_id, 'admin');
    update rustygpt.invites set revoked_at = now()
     where conversation_id = p_conversation_id and lower(email) = lower(p_email)
       and accepted_at is null and revoked_at is null and expires_at <= now();
    if exists (select 1 from rustygpt.invites
                where conversation_id = p_conversation_id and lower(email) = lower(p_email)
                  and accepted_at is null and revoked_at is null)
    then
        perform rustygpt.fail(409, 'RGP.CONFLICT',
            'There is an open invitation for this e-mail address. Revoke it before you make another.');
    elsif rustygpt.invite_of(p_token_hash) is not null then
        perform rustygpt.fail(409, 'RGP.CONFLICT',
            'This Idempotency-Key has made an invitation before. Use a new key for a new one.');
    end if;
    insert into rustygpt.invites (id, conversation_id, email, role, token_hash, invited_by, expires_at)
    values (new_id, p_conversation_id, p_email, p_role, p_token_hash, actor, now() + p_ttl);
    return rustygpt.remember(actor, p_once, json_build_object(
        'invite_id', new_id, 'expires_at', rustygpt.instant(now() + p_ttl),
        'token_hash', encode(p_token_hash, 'hex')));
end
$$;

create or replace function rustygpt.invite_of(p_token_hash bytea) returns uuid
language sql stable as $$ select id from rustygpt.invites where token_hash = p_token_hash $$;

create or replace function rustygpt.invite_state(
    p_accepted_at timestamptz, p_revoked_at timestamptz, p_expires_at timestamptz
) returns text language sql stable as $$
    select case when p_accepted_at is not null then 'accepted'
                when p_expires_at <= coalesce(p_revoked_at, now()) then 'expired'
                when p_revoked_at is not null then 'revoked'
                else 'live' end
$$;

-- The latest first; p_before: the last page's last.
create or replace function rustygpt.api_list_invites(
    p_session bytea, p_conversation_id uuid, p_before uuid, p_limit integer
) returns json language plpgsql volatile as $$
begin
    perform rustygpt.sign_in(p_session);
    perform rustygpt.require_role(p_conversation_id, 'admin');
    return (
        with page as (
            select id, email, role, invited_by, created_at, expires_at,
                   rustygpt.invite_state(accepted_at, revoked_at, expires_at) as state
              from rustygpt.invites
             where conversation_id = p_conversation_id and (p_before is null or id < p_before)
             order by id desc limit p_limit + 1),
        shown as (select * from page order by id desc limit p_limit)
        select json_build_object(
            'invites', coalesce((
                select json_agg(json_build_object(
                           'id', id, 'email', email, 'role', role, 'invited_by', invited_by, 'state', state,
                           'created_at', rustygpt.instant(created_at), 'expires_at', rustygpt.instant(expires_at))
                           order by id desc)
                  from shown), '[]'::json),
            'next_before', case when (select count(*) from page) > p_limit then (
                select id from shown order by id limit 1) end));
end
$$;

-- By its place and id, or by its token. Again: nothing happens.
create or replace function rustygpt.api_revoke_invite(
    p_session bytea, p_conversation_id uuid, p_invite_id uuid, p_token_hash bytea
) returns void language plpgsql volatile as $$
declare
    target uuid := coalesce(p_invite_id, rustygpt.invite_of(p_token_hash));
    place uuid;
    taken timestamptz;
begin
    perform rustygpt.sign_in(p_session);
    place := rustygpt.inviting_conversation(target);
    perform rustygpt.lock_conversation(coalesce(p_conversation_id, place), 'admin');
    if place is distinct from coalesce(p_conversation_id, place) then
        perform rustygpt.fail(404, 'RGP.NOT_FOUND', 'There is no such invitation.');
    end if;
    select accepted_at into taken from rustygpt.invites where id = target;
    if taken is not null then
        perform rustygpt.fail(409, 'RGP.CONFLICT',
            'This invitation was accepted. Remove the participant from the conversation instead.');
    end if;
    update rustygpt.invites set revoked_at = now() where id = target and revoked_at is null;
end
$$;

-- Whose invitation it is; 404 when there is none.
create or replace function rustygpt.inviting_conversation(p_invite_id uuid) returns uuid
language plpgsql stable as $$
declare
    place uuid;
begin
    select conversation_id into place from rustygpt.invites where id = p_invite_id;
    if not found then
        perform rustygpt.fail(404, 'RGP.NOT_FOUND', 'There is no such invitation.');
    end if;
    return place;
end
$$;

create or replace function rustygpt.api_accept_invite(p_session bytea, p_once text[], p_token_hash bytea) returns json
language plpgsql volatile as $$
declare
    actor uuid := rustygpt.sign_in(p_session);
    replay json := rustygpt.recall(actor, p_once);
begin
    if replay is not null then
        return replay;
    end if;
    return rustygpt.remember(actor, p_once, json_build_object(
        'conversation_id', rustygpt.accept_invite(actor, rustygpt.invite_of(p_token_hash))));
end
$$;

-- Once, by whom it is meant for. The system's work: an invited person has no role yet.
create or replace function rustygpt.accept_invite(p_user_id uuid, p_invite_id uuid) returns uuid
language plpgsql volatile as $$
declare
    place uuid := rustygpt.inviting_conversation(p_invite_id);
    invite rustygpt.invites;
    state text;
begin
    perform rustygpt.lock_channel(place);
    select * into strict invite from rustygpt.invites where id = p_invite_id;
    state := rustygpt.invite_state(invite.accepted_at, invite.revoked_at, invite.expires_at);
    if not exists (select 1 from rustygpt.users where id = p_user_id and lower(email) = lower(invite.email)) then
        perform rustygpt.fail(403, 'RGP.RBAC.FORBIDDEN',
            'This invitation is for another e-mail address. Sign in with the account it was sent to.');
    elsif state = 'accepted' then
        perform rustygpt.fail(409, 'RGP.CONFLICT', 'This invitation was accepted before.');
    elsif state <> 'live' or exists (
        select 1 from rustygpt.conversations where id = place and deleted_at is not null)
    then
        perform rustygpt.fail(410, 'RGP.GONE',
            'This invitation has expired, was revoked, or its conversation is gone. Ask for a new one.');
    elsif exists (select 1 from rustygpt.participants
                   where conversation_id = place and user_id = p_user_id and left_at is null)
    then
        perform rustygpt.fail(409, 'RGP.CONFLICT', 'You take part in this conversation already.');
    end if;
    update rustygpt.invites set accepted_at = now(), accepted_by = p_user_id where id = p_invite_id;
    insert into rustygpt.participants (conversation_id, user_id, role) values (place, p_user_id, invite.role)
    on conflict (conversation_id, user_id) do update set role = excluded.role, joined_at = now(), left_at = null;
    perform rustygpt.tell_membership(place, p_user_id, invite.role::text, 'added');
    return place;
end
$$;
