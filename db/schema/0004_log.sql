-- A channel is an ordered, gapless log: of one conversation, or of one user (the inbox).
create table rustygpt.channels (
    id           uuid primary key,             -- the conversation's or the user's id
    kind         text not null check (kind in ('conversation', 'user')),
    epoch        integer not null default 1,   -- raised when offsets already given out may have been lost
    first_offset bigint not null default 1,    -- oldest event retained
    last_offset  bigint not null default 0     -- advanced under this row's lock, in the transaction that inserts
) with (fillfactor = 50);                      -- room for HOT updates: the row changes on every append

create table rustygpt.events (
    channel_id uuid not null references rustygpt.channels on delete cascade,
    "offset"   bigint not null,
    type       text not null,
    payload    json not null,                  -- json, not jsonb: it goes out again byte for byte
    message_id uuid,                           -- of the delta, or of the message's end
    token_ids  integer[],                      -- of a delta: what a resuming replica continues from
    created_at timestamptz not null default now(),
    primary key (channel_id, "offset")
);
create index events_message_idx on rustygpt.events (message_id, "offset") where token_ids is not null;

-- A turn is the work of writing one assistant message.
--   queued ──claim──> running ──finish──> done
--     │                  └─(lease expired)─claim with epoch + 1─> running
--     └──cancel──────────────────────────────────────────────────> done
create type rustygpt.turn_state as enum ('queued', 'running', 'done');

create table rustygpt.turns (
    message_id       uuid primary key references rustygpt.messages on delete cascade,
    conversation_id  uuid not null references rustygpt.conversations on delete cascade,
    model            text not null,
    state            rustygpt.turn_state not null default 'queued',
    epoch            integer not null default 0,    -- fencing: an append with an older one is refused
    owner            text,                          -- the replica that holds the lease
    lease_expires_at timestamptz,
    delta_count      integer not null default 0,    -- idx of the next delta
    cancel_requested boolean not null default false,
    deadline_at      timestamptz,
    created_at       timestamptz not null default now(),
    finished_at      timestamptz
) with (fillfactor = 50);
create index turns_open_idx on rustygpt.turns (model, created_at) where state <> 'done';
