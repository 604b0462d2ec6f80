-- Errors: SQLSTATE class RG, whose three digits are the HTTP status; MESSAGE is the code, DETAIL the sentence.
create or replace function rustygpt.fail(p_status integer, p_code text, p_sentence text) returns void
language plpgsql as $$
begin
    raise exception using errcode = 'RG' || p_status, message = p_code, detail = p_sentence;
end
$$;

-- UUID version 7 (RFC 9562): 48 bits of Unix milliseconds, then random bits; sorts by time of making.
create or replace function rustygpt.uuid_v7() returns uuid
language sql volatile as $$
    select encode(
        set_bit(set_bit(
            overlay(uuid_send(gen_random_uuid())
                    placing substring(int8send(floor(extract(epoch from clock_timestamp()) * 1000)::bigint) from 3)
                    from 1 for 6),
            52, 1), 53, 1), 'hex')::uuid
$$;

-- RFC 3339 in UTC, as every JSON answer and event has it.
create or replace function rustygpt.instant(p timestamptz) returns text
language sql immutable as $$
    select to_char(p at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
$$;

-- For whom the row-level policies act; null outside an api_* function.
create or replace function rustygpt.actor_id() returns uuid
language sql stable
as $$ select nullif(current_setting('app.current_user_id', true), '')::uuid $$;

-- Definer, so that the participants' own policy can use it without recursion. In a deleted conversation nobody
-- has a role.
create or replace function rustygpt.actor_role(p_conversation_id uuid) returns rustygpt.conversation_role
language sql stable
as $$
    select p.role from rustygpt.participants p
      join rustygpt.conversations c on c.id = p.conversation_id
     where p.conversation_id = p_conversation_id and p.user_id = rustygpt.actor_id() and p.left_at is null
       and c.deleted_at is null
$$;

-- Who is behind this session token or API key? Raises 401 unless it is live, 423 when the account is disabled.
create or replace function rustygpt.session_user_id(p_token_hash bytea) returns uuid
language plpgsql stable as $$
declare
    found_user uuid;
    is_disabled boolean;
    ends timestamptz;
begin
    select s.user_id, u.disabled_at is not null, least(s.expires_at, s.absolute_expires_at)
      into found_user, is_disabled, ends
      from rustygpt.sessions s join rustygpt.users u on u.id = s.user_id
     where s.token_hash = p_token_hash;
    if found_user is null then
        found_user := (rustygpt.live_key(p_token_hash)).user_id;
    end if;
    if found_user is null then
        perform rustygpt.fail(401, 'RGP.AUTH.INVALID_SESSION', 'You are not signed in. Sign in and try again.');
    elsif is_disabled then
        perform rustygpt.fail(423, 'RGP.AUTH.DISABLED', 'This account is disabled. Ask an administrator.');
    elsif ends < now() then
        perform rustygpt.fail(401, 'RGP.AUTH.EXPIRED', 'Your session has expired. Sign in again.');
    end if;
    return found_user;
end
$$;

-- Begins every api_* function: from here row-level security acts for this user.
create or replace function rustygpt.sign_in(p_token_hash bytea) returns uuid
language plpgsql volatile as $$
declare
    actor uuid := rustygpt.session_user_id(p_token_hash);
begin
    perform set_config('app.current_user_id', actor::text, true);
    return actor;
end
$$;

-- A function that creates something begins with this and ends with `remember`. p_once is null, or [key,
-- fingerprint of the request]. Null: the work is to be done now. Else the answer that this request got before;
-- a request with the same key that is being worked on is waited for.
create or replace function rustygpt.recall(p_actor uuid, p_once text[]) returns json
language plpgsql volatile as $$
declare
    held rustygpt.idempotency_keys;
begin
    if p_once is null then
        return null;
    end if;
    insert into rustygpt.idempotency_keys (user_id, key, fingerprint) values (p_actor, p_once[1], p_once[2])
    on conflict (user_id, key) do nothing;
    if found then
        return null;
    end if;
    select * into held from rustygpt.idempotency_keys where user_id = p_actor and key = p_once[1];
    if not found then
        return rustygpt.recall(p_actor, p_once);   -- it grew too old just now
    end if;
    perform rustygpt.check_same_request(held.fingerprint, p_once);
    return held.answer;
end
$$;

-- As `recall`, for a look beforehand: nothing is begun by it, and what is being worked on is not waited for.
create or replace function rustygpt.look_up(p_actor uuid, p_once text[]) returns json
language plpgsql stable as $$
declare
    held rustygpt.idempotency_keys;
begin
    select * into held from rustygpt.idempotency_keys where user_id = p_actor and key = p_once[1];
    perform rustygpt.check_same_request(held.fingerprint, p_once);
    return held.answer;
end
$$;

create or replace function rustygpt.check_same_request(p_fingerprint text, p_once text[]) returns void
language plpgsql stable as $$
begin
    if p_fingerprint <> p_once[2] then
        perform rustygpt.fail(422, 'RGP.IDEMPOTENCY.MISMATCH',
            'This Idempotency-Key was used for another request. Use a new key for a new request.');
    end if;
end
$$;

create or replace function rustygpt.remember(p_actor uuid, p_once text[], p_answer json) returns json
language plpgsql volatile as $$
begin
    if p_once is not null then
        update rustygpt.idempotency_keys set answer = p_answer where user_id = p_actor and key = p_once[1];
    end if;
    return p_answer;
end
$$;

-- The number of the conversation's next message. Under the channel's lock.
create or replace function rustygpt.next_seq(p_conversation_id uuid) returns bigint
language sql volatile as $$
    update rustygpt.conversations set message_count = message_count + 1, updated_at = now()
     where id = p_conversation_id returning message_count
$$;

-- Moves the idle limit forward, at most once a minute so that reading stays free of writes.
create or replace function rustygpt.touch_session(p_token_hash bytea, p_idle interval) returns void
language sql volatile as $$
    update rustygpt.sessions set expires_at = now() + p_idle
     where token_hash = p_token_hash and expires_at < now() + p_idle - interval '1 minute'
$$;

create or replace function rustygpt.require_admin() returns void
language plpgsql stable as $$
begin
    if not exists (select 1 from rustygpt.users where id = rustygpt.actor_id() and is_admin) then
        perform rustygpt.fail(403, 'RGP.RBAC.FORBIDDEN', 'Only an administrator may do this.');
    end if;
end
$$;

-- The actor's role in a conversation: 403 for anybody who is no participant, whether it exists or not.
create or replace function rustygpt.require_role(p_conversation_id uuid, p_least rustygpt.conversation_role)
returns void language plpgsql stable as $$
declare
    held rustygpt.conversation_role := rustygpt.actor_role(p_conversation_id);
begin
    if held is null then
        perform rustygpt.fail(403, 'RGP.RBAC.FORBIDDEN', 'You are not a participant of this conversation.');
    elsif held > p_least then
        perform rustygpt.fail(403, 'RGP.RBAC.FORBIDDEN',
            format('This needs the role %s or higher; yours is %s.', p_least, held));
    end if;
end
$$;

create or replace function rustygpt.cursor_text(p_epoch integer, p_offset bigint) returns text
language sql immutable as $$
    select case when p_epoch = 1 then p_offset::text else p_epoch || ':' || p_offset end
$$;

create or replace function rustygpt.channel_cursor(p_channel_id uuid) returns text
language sql stable as $$
    select rustygpt.cursor_text(epoch, last_offset) from rustygpt.channels where id = p_channel_id
$$;

create or replace function rustygpt.user_json(p_user_id uuid) returns json
language sql stable as $$
    select json_build_object(
        'id', id, 'email', email, 'username', username, 'display_name', display_name,
        'roles', case when is_admin then json_build_array('admin', 'member') else json_build_array('member') end)
      from rustygpt.users where id = p_user_id
$$;
