-- API keys: whoever holds one may do under /v1, within its scopes, what its user may.
--   live ──revoke──> revoked
--     └──(time)────> expired
create table rustygpt.api_keys (
    id           uuid primary key,
    user_id      uuid not null references rustygpt.users on delete cascade,
    name         text not null check (length(name) between 1 and 64),
    prefix       text not null check (length(prefix) between 6 and 16),      -- by which its user recognises it
    key_hash     bytea not null unique check (length(key_hash) = 32),        -- SHA-256; the key is never stored
    scopes       text[] not null check (
        cardinality(scopes) between 1 and 3 and scopes <@ array['v1.read', 'v1.write', 'admin.limits']),
    created_at   timestamptz not null default now(),
    expires_at   timestamptz,                                                -- null: never
    revoked_at   timestamptz,
    last_used_at timestamptz                                                 -- about a minute late; null: never
) with (fillfactor = 80);                                                    -- use moves last_used_at only: HOT updates
create index api_keys_user_idx on rustygpt.api_keys (user_id, id desc);

-- One row, whose number grows with whatever makes a key worth less than it was. Gateways, which remember keys, read it
-- once a second.
create table rustygpt.api_key_version (
    is_only boolean primary key default true check (is_only),
    version bigint not null
);

-- What has been used of the limits of a minute, as of `counted_at`; it goes down with time. The subject is a key, or a
-- user who came with a session. Lost in a crash of the server: limits begin anew.
create unlogged table rustygpt.api_usage (
    subject_id uuid primary key,
    requests   double precision not null,
    tokens     double precision not null,
    counted_at timestamptz not null
);

-- When this installation first served a model.
create table rustygpt.served_models (
    id              text primary key,
    first_served_at timestamptz not null default now()
);

do $$
declare
    table_name text;
begin
    foreach table_name in array array['api_keys', 'api_key_version', 'api_usage', 'served_models'] loop
        execute format('alter table rustygpt.%I enable row level security', table_name);
        execute format('alter table rustygpt.%I force row level security', table_name);
        execute format('grant select, insert, update, delete on rustygpt.%I to rustygpt_system', table_name);
        execute format('create policy system_all on rustygpt.%I to rustygpt_system using (true) with check (true)', table_name);
    end loop;
end
$$;

-- As the system: of a table with forced policies the schema's owner sees nothing.
set local role rustygpt_system;
insert into rustygpt.api_key_version (version) values (1);
reset role;

-- A user's keys are their own affair; a key for administration is only an administrator's.
grant select (id, user_id, name, prefix, scopes, created_at, expires_at, revoked_at, last_used_at),
      insert (id, user_id, name, prefix, key_hash, scopes, expires_at),
      update (revoked_at) on rustygpt.api_keys to rustygpt_api;
create policy api_select on rustygpt.api_keys for select to rustygpt_api using (user_id = rustygpt.actor_id());
create policy api_insert on rustygpt.api_keys for insert to rustygpt_api
    with check (user_id = rustygpt.actor_id()
                and ('admin.limits' <> all (scopes)
                     or exists (select 1 from rustygpt.users u where u.id = rustygpt.actor_id() and u.is_admin)));
create policy api_update on rustygpt.api_keys for update to rustygpt_api
    using (user_id = rustygpt.actor_id()) with check (user_id = rustygpt.actor_id());

-- Triggers, so that no way of taking a right back, an operator's own SQL included, goes unnoticed.
create function rustygpt.note_key_change() returns trigger
language plpgsql as $$
begin
    update rustygpt.api_key_version set version = version + 1;
    return null;
end
$$;
create trigger api_keys_changed after update of revoked_at, expires_at, scopes, user_id, key_hash or delete
    on rustygpt.api_keys for each row execute function rustygpt.note_key_change();
create trigger users_changed after update of disabled_at, is_admin
    on rustygpt.users for each row
    when (old.disabled_at is distinct from new.disabled_at or old.is_admin <> new.is_admin)
    execute function rustygpt.note_key_change();
