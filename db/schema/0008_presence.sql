-- Who is there, who types, and who has read what.

--   offline ──beat──> online ──(no beat for presence.away_seconds)──> away ──(for presence.offline_seconds)──> offline
-- A beat also says away or offline: what the client knows of its person.
create type rustygpt.presence_status as enum ('online', 'away', 'offline');

create table rustygpt.presence (
    user_id      uuid primary key references rustygpt.users on delete cascade,
    status       rustygpt.presence_status not null default 'offline',
    last_seen_at timestamptz                       -- the latest beat; null: none yet
) with (fillfactor = 50);                          -- a beat moves last_seen_at only: room for HOT updates
-- Those whose silence is watched. Without last_seen_at, which would make every beat write to the index.
create index presence_live_idx on rustygpt.presence (user_id) where status <> 'offline';

-- Until when readers were told that somebody types. Lost in a crash of the server, which lasts longer than typing.
create unlogged table rustygpt.typing (
    conversation_id uuid not null,
    user_id         uuid not null,
    root_id         uuid,                          -- the thread; null: a new one
    expires_at      timestamptz not null,
    unique nulls not distinct (conversation_id, user_id, root_id)
);

-- Up to which message (its seq) a person has read a thread. No row: nothing of it.
create table rustygpt.read_marks (
    root_id         uuid not null references rustygpt.messages on delete cascade,
    user_id         uuid not null references rustygpt.users on delete cascade,
    conversation_id uuid not null,                 -- the thread's, for the policies
    last_read_seq   bigint not null,
    updated_at      timestamptz not null default now(),
    primary key (root_id, user_id)
);

-- For retention: deleted conversations, and what a row's deletion looks for.
create index conversations_deleted_idx on rustygpt.conversations (deleted_at) where deleted_at is not null;
create index messages_parent_idx on rustygpt.messages (parent_id);
create index turns_conversation_idx on rustygpt.turns (conversation_id);

do $$
declare
    table_name text;
begin
    foreach table_name in array array['presence', 'typing', 'read_marks'] loop
        execute format('alter table rustygpt.%I enable row level security', table_name);
        execute format('alter table rustygpt.%I force row level security', table_name);
        execute format('grant select, insert, update, delete on rustygpt.%I to rustygpt_system', table_name);
        execute format('create policy system_all on rustygpt.%I to rustygpt_system using (true) with check (true)', table_name);
    end loop;
end
$$;

-- Presence has no grant to rustygpt_api: whom it concerns, its functions say.
grant select, insert, update (expires_at) on rustygpt.typing to rustygpt_api;
create policy api_select on rustygpt.typing for select to rustygpt_api
    using (rustygpt.actor_role(conversation_id) is not null);
create policy api_insert on rustygpt.typing for insert to rustygpt_api
    with check (user_id = rustygpt.actor_id() and rustygpt.actor_role(conversation_id) <= 'member');
create policy api_update on rustygpt.typing for update to rustygpt_api
    using (user_id = rustygpt.actor_id() and rustygpt.actor_role(conversation_id) <= 'member');

grant select, insert, update (last_read_seq, updated_at) on rustygpt.read_marks to rustygpt_api;
create policy api_own on rustygpt.read_marks to rustygpt_api
    using (user_id = rustygpt.actor_id())
    with check (user_id = rustygpt.actor_id() and rustygpt.actor_role(conversation_id) is not null);

-- Everybody has a row. As the system: of a table with forced policies the schema's owner sees nothing.
set local role rustygpt_system;
insert into rustygpt.presence (user_id) select id from rustygpt.users;
reset role;
