create or replace function rustygpt.note_key_change() returns trigger
language plpgsql as $$
begin
    update rustygpt.api_key_version set version = version + 1;
    return null;
end
$$;

-- The key with this hash; a row of nulls when there is none. Raises 401 when it was revoked or has expired, 423 when the
-- account is disabled.
create or replace function rustygpt.live_key(p_hash bytea) returns rustygpt.api_keys
language plpgsql stable as $$
declare
    held rustygpt.api_keys;
begin
    select * into held from rustygpt.api_keys where key_hash = p_hash;
    if held.revoked_at is not null then
        perform rustygpt.fail(401, 'RGP.AUTH.INVALID_API_KEY', 'This API key was revoked. Make another one.');
    elsif held.expires_at <= now() then
        perform rustygpt.fail(401, 'RGP.AUTH.EXPIRED_API_KEY', 'This API key has expired. Make another one.');
    elsif exists (select 1 from rustygpt.users where id = held.user_id and disabled_at is not null) then
        perform rustygpt.fail(423, 'RGP.AUTH.DISABLED', 'This account is disabled. Ask an administrator.');
    end if;
    return held;
end
$$;

-- Keys are managed by people who are signed in: a key that leaked must not make others that outlive it.
create or replace function rustygpt.require_session(p_session bytea) returns void
language plpgsql stable as $$
begin
    if not exists (select 1 from rustygpt.sessions where token_hash = p_session) then
        perform rustygpt.fail(403, 'RGP.RBAC.FORBIDDEN', 'An API key cannot manage API keys. Sign in.');
    end if;
end
$$;

create or replace function rustygpt.key_state(p_revoked_at timestamptz, p_expires_at timestamptz) returns text
language sql stable as $$
    select case when p_expires_at <= coalesce(p_revoked_at, now()) then 'expired'
                when p_revoked_at is not null then 'revoked'
                else 'live' end
$$;

-- The key's hash is in the answer, for the Gateway alone: it says whether the key that it holds is the one that was
-- made, now or by an earlier request with the same Idempotency-Key. Lives for p_lifetime or until p_expires_at.
create or replace function rustygpt.api_create_key(
    p_session bytea, p_once text[], p_name text, p_prefix text, p_hash bytea, p_scopes text[], p_lifetime interval,
    p_expires_at timestamptz
) returns json language plpgsql volatile as $$
declare
    actor uuid := rustygpt.sign_in(p_session);
    replay json := rustygpt.recall(actor, p_once);
    new_id uuid := rustygpt.uuid_v7();
    ends timestamptz := coalesce(p_expires_at, now() + p_lifetime);
begin
    perform rustygpt.require_session(p_session);
    if replay is not null then
        return replay;
    end if;
    if 'admin.limits' = any (p_scopes) then
        perform rustygpt.require_admin();
    end if;
    if ends <= now() then
        perform rustygpt.fail(422, 'RGP.VALIDATION', 'expires_at: must lie in the future');
    end if;
    perform pg_advisory_xact_lock(hashtextextended('rustygpt.api_keys ' || actor, 0));
    if (select count(*) from (select revoked_at, expires_at from rustygpt.api_keys where user_id = actor) k
         where rustygpt.key_state(k.revoked_at, k.expires_at) = 'live') >= 100
    then
        perform rustygpt.fail(409, 'RGP.CONFLICT', 'You have 100 API keys. Revoke one before you make another.');
    elsif rustygpt.has_key(p_hash) then
        perform rustygpt.fail(409, 'RGP.CONFLICT',
            'This Idempotency-Key has made an API key before. Use a new key for a new one.');
    end if;
    insert into rustygpt.api_keys (id, user_id, name, prefix, key_hash, scopes, expires_at)
    values (new_id, actor, p_name, p_prefix, p_hash, p_scopes, ends);
    return rustygpt.remember(actor, p_once, json_build_object(
        'id', new_id, 'name', p_name, 'prefix', p_prefix, 'scopes', to_json(p_scopes),
        'created_at', rustygpt.instant(now()), 'expires_at', rustygpt.instant(ends),
        'key_hash', encode(p_hash, 'hex')));
end
$$;

create or replace function rustygpt.has_key(p_hash bytea) returns boolean
language sql stable as $$ select exists (select 1 from rustygpt.api_keys where key_hash = p_hash) $$;

-- The caller's, the latest first; p_before: the last page's last.
create or replace function rustygpt.api_list_keys(p_session bytea, p_before uuid, p_limit integer) returns json
language plpgsql volatile as $$
begin
    perform rustygpt.sign_in(p_session);
    perform rustygpt.require_session(p_session);
    return (
        with page as (
            select id, name, prefix, scopes, created_at, expires_at, last_used_at,
                   rustygpt.key_state(revoked_at, expires_at) as state
              from rustygpt.api_keys
             where user_id = rustygpt.actor_id() and (p_before is null or id < p_before)
             order by id desc limit p_limit + 1),
        shown as (select * from page order by id desc limit p_limit)
        select json_build_object(
            'keys', coalesce((
                select json_agg(json_build_object(
                           'id', id, 'name', name, 'prefix', prefix, 'scopes', to_json(scopes), 'state', state,
                           'created_at', rustygpt.instant(created_at), 'expires_at', rustygpt.instant(expires_at),
                           'last_used_at', rustygpt.instant(last_used_at))
                           order by id desc)
                  from shown), '[]'::json),
            'next_before', case when (select count(*) from page) > p_limit then (
                select id from shown order by id limit 1) end));
end
$$;

-- One of the caller's. Again: nothing happens.
create or replace function rustygpt.api_revoke_key(p_session bytea, p_key_id uuid) returns void
language plpgsql volatile as $$
begin
    perform rustygpt.sign_in(p_session);
    perform rustygpt.require_session(p_session);
    update rustygpt.api_keys set revoked_at = coalesce(revoked_at, now())
     where id = p_key_id and user_id = rustygpt.actor_id();
    if not found then
        perform rustygpt.fail(404, 'RGP.NOT_FOUND', 'You have no such API key.');
    end if;
end
$$;

-- Who is signed in, for a request whose work is done outside the database.
create or replace function rustygpt.api_session_user(p_session bytea, p_idle interval) returns uuid
language plpgsql volatile as $$
begin
    perform rustygpt.sign_in(p_session);
    perform rustygpt.touch_session(p_session, p_idle);
    return rustygpt.actor_id();
end
$$;

-- What a Gateway may remember of a key, as long as the version stays the same. Raises 401 and 423 as `live_key`.
create or replace function rustygpt.api_find_key(p_hash bytea) returns json
language sql stable as $$ select rustygpt.find_key(p_hash) $$;

-- Stable: all of one instant. A key for administration is worth no more than its user.
create or replace function rustygpt.find_key(p_hash bytea) returns json
language plpgsql stable as $$
declare
    held rustygpt.api_keys := rustygpt.live_key(p_hash);
    holder_is_admin boolean;
begin
    if held.id is null then
        perform rustygpt.fail(401, 'RGP.AUTH.INVALID_API_KEY', 'There is no such API key. Check it, or make another one.');
    end if;
    select is_admin into holder_is_admin from rustygpt.users where id = held.user_id;
    return json_build_object(
        'version', (select version from rustygpt.api_key_version),
        'key_id', held.id, 'user_id', held.user_id,
        'scopes', to_json(case when holder_is_admin then held.scopes else array_remove(held.scopes, 'admin.limits') end),
        'expires_in_seconds', extract(epoch from held.expires_at - clock_timestamp()));
end
$$;

-- A Gateway's call of every second: tells when keys were used and what was used of limits, and learns whether a key
-- has changed and what all Gateways together have used. Times are in seconds before now, p_subjects and their numbers
-- those of whom it knows; rates are per second.
create or replace function rustygpt.api_sync_keys(
    p_key_ids uuid[], p_used_seconds_ago double precision[], p_subjects uuid[], p_requests double precision[],
    p_tokens double precision[], p_request_rate double precision, p_token_rate double precision
) returns json language plpgsql volatile as $$
begin
    if cardinality(p_key_ids) > 0 then
        perform rustygpt.note_key_use(p_key_ids, p_used_seconds_ago);
    end if;
    if cardinality(p_subjects) > 0 then
        perform rustygpt.add_usage(p_subjects, p_requests, p_tokens, p_request_rate, p_token_rate);
    end if;
    return rustygpt.keys_now(p_subjects, p_request_rate, p_token_rate);
end
$$;

-- In order of id, as all do, so that no two Gateways wait for each other.
create or replace function rustygpt.note_key_use(p_key_ids uuid[], p_used_seconds_ago double precision[])
returns void language sql volatile as $$
    with locked as (
        select id from rustygpt.api_keys where id = any (p_key_ids) order by id for no key update)
    update rustygpt.api_keys k
       set last_used_at = greatest(k.last_used_at, now() - make_interval(secs => used.ago))
      from locked join unnest(p_key_ids, p_used_seconds_ago) used (id, ago) using (id)
     where k.id = locked.id
$$;

create or replace function rustygpt.used_now(
    p_used double precision, p_counted_at timestamptz, p_now timestamptz, p_rate double precision
) returns double precision language sql immutable as $$
    select greatest(0, p_used - p_rate * greatest(0, extract(epoch from p_now - p_counted_at)))
$$;

create or replace function rustygpt.add_usage(
    p_subjects uuid[], p_requests double precision[], p_tokens double precision[], p_request_rate double precision,
    p_token_rate double precision
) returns void language sql volatile as $$
    insert into rustygpt.api_usage as held (subject_id, requests, tokens, counted_at)
    select subject_id, requests, tokens, clock_timestamp()
      from unnest(p_subjects, p_requests, p_tokens) used (subject_id, requests, tokens)
     where requests > 0 or tokens > 0
     order by subject_id
    on conflict (subject_id) do update set
        requests = excluded.requests
                   + rustygpt.used_now(held.requests, held.counted_at, excluded.counted_at, p_request_rate),
        tokens = excluded.tokens + rustygpt.used_now(held.tokens, held.counted_at, excluded.counted_at, p_token_rate),
        counted_at = greatest(held.counted_at, excluded.counted_at)
$$;

create or replace function rustygpt.keys_now(
    p_subjects uuid[], p_request_rate double precision, p_token_rate double precision
) returns json language sql volatile as $$
    select json_build_object(
        'version', (select version from rustygpt.api_key_version),
        'usage', coalesce((
            select json_agg(json_build_array(
                       subject_id, rustygpt.used_now(requests, counted_at, clock_timestamp(), p_request_rate),
                       rustygpt.used_now(tokens, counted_at, clock_timestamp(), p_token_rate)))
              from rustygpt.api_usage where subject_id = any (p_subjects)), '[]'::json))
$$;

-- {id: Unix time at which this installation first served the model}.
create or replace function rustygpt.api_served_models(p_models text[]) returns json
language sql volatile as $$ select rustygpt.served_models(p_models) $$;

create or replace function rustygpt.served_models(p_models text[]) returns json
language plpgsql volatile as $$
begin
    insert into rustygpt.served_models (id) select unnest(p_models) on conflict (id) do nothing;
    return (select json_object_agg(id, floor(extract(epoch from first_served_at))::bigint)
              from rustygpt.served_models where id = any (p_models));
end
$$;

-- Keys that ended p_keep ago.
create or replace function rustygpt.worker_purge_api_keys(p_keep interval, p_limit integer) returns integer
language sql volatile as $$
    with gone as (
        delete from rustygpt.api_keys where ctid = any (array(
            select ctid from rustygpt.api_keys
             where least(expires_at, revoked_at) < now() - p_keep limit p_limit for update skip locked))
        returning 1)
    select count(*)::integer from gone
$$;

-- Whatever was used p_keep ago has been forgiven, if p_keep is long enough.
create or replace function rustygpt.worker_purge_api_usage(p_keep interval, p_limit integer) returns integer
language sql volatile as $$
    with gone as (
        delete from rustygpt.api_usage where ctid = any (array(
            select ctid from rustygpt.api_usage where counted_at < now() - p_keep limit p_limit for update skip locked))
        returning 1)
    select count(*)::integer from gone
$$;
