create type rustygpt.conversation_role as enum (
    'owner',    -- all an admin may; at least one is left at all times
    'admin',    -- manages participants
    'member',   -- reads and writes
    'viewer'    -- reads
);

create type rustygpt.message_role as enum ('user', 'assistant', 'system', 'tool');

-- A message's life. User messages are born `done`.
--   queued ──claimed──> streaming ──finished──> done
--      └──────cancelled before a replica took it──^
create type rustygpt.message_state as enum ('queued', 'streaming', 'done');

create table rustygpt.conversations (
    id          uuid primary key,
    title       text not null check (length(title) between 1 and 256),
    is_group    boolean not null default false,
    created_by  uuid not null references rustygpt.users,
    root_count  integer not null default 0,    -- ordinal of the newest thread
    created_at  timestamptz not null default now(),
    updated_at  timestamptz not null default now()
);

create table rustygpt.participants (
    conversation_id uuid not null references rustygpt.conversations on delete cascade,
    user_id         uuid not null references rustygpt.users on delete cascade,
    role            rustygpt.conversation_role not null,
    joined_at       timestamptz not null default now(),
    left_at         timestamptz,
    primary key (conversation_id, user_id)
);
create index participants_user_idx on rustygpt.participants (user_id) where left_at is null;

create table rustygpt.messages (
    id              uuid primary key,
    conversation_id uuid not null references rustygpt.conversations on delete cascade,
    root_id         uuid not null,             -- = id for the message that starts a thread
    parent_id       uuid references rustygpt.messages,
    author_id       uuid references rustygpt.users,
    role            rustygpt.message_role not null,
    state           rustygpt.message_state not null,
    content         text not null default '',  -- empty until done; a streaming message's text is its delta events
    path            integer[] not null,        -- ordinal among siblings at each level: array order is depth-first order
    child_count     integer not null default 0,
    finish_reason   text check (finish_reason in ('stop', 'length', 'cancelled', 'timeout', 'error')),
    usage           json,
    created_at      timestamptz not null default now(),
    unique (conversation_id, path),
    check ((role = 'user') = (author_id is not null))
);
create index messages_root_idx on rustygpt.messages (root_id, path);
