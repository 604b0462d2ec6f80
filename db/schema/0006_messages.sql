-- When the assistant answers in a conversation.
create type rustygpt.reply_mode as enum (
    'always',      -- every message of a person
    'mentioned',   -- messages that name @assistant
    'never'
);

alter table rustygpt.conversations
    add column archived_at   timestamptz,
    add column deleted_at    timestamptz,              -- gone for everybody; the rows go with retention
    add column reply_mode    rustygpt.reply_mode not null default 'always',
    add column model         text check (length(model) between 1 and 128),              -- null: the default model
    add column system_prompt text check (length(system_prompt) between 1 and 20000),    -- null: the model's own
    add column temperature   real check (temperature between 0 and 2),                  -- null: the model's own
    add column message_count bigint not null default 0;                                 -- seq of the newest message

-- `seq` numbers the messages of a conversation in the order in which they were made: what unread counts go by.
-- (A path says where a message stands, not when it came: a reply in an old branch stands before what was read.)
alter table rustygpt.messages
    add column seq              bigint,
    add column title            text check (length(title) between 1 and 256),           -- of a root: the thread's
    add column last_activity_at timestamptz,                                            -- of a root: the thread's
    add column edited_at        timestamptz,
    add column deleted_at       timestamptz,           -- the content is kept for a restore and shown to nobody
    add column deleted_by       uuid references rustygpt.users;

update rustygpt.messages m set seq = numbered.seq
  from (select id, row_number() over (partition by conversation_id order by created_at, id) as seq
          from rustygpt.messages) numbered
 where numbered.id = m.id;
update rustygpt.conversations c set message_count = (
    select count(*) from rustygpt.messages m where m.conversation_id = c.id);
update rustygpt.messages r set last_activity_at = (
    select max(created_at) from rustygpt.messages m where m.root_id = r.id)
 where r.parent_id is null;

alter table rustygpt.messages alter column seq set not null;
create unique index messages_thread_seq_idx on rustygpt.messages (root_id, seq);
create index messages_activity_idx on rustygpt.messages (conversation_id, last_activity_at desc, id desc)
    where parent_id is null;

-- What a message said before each of its edits.
create table rustygpt.message_versions (
    message_id uuid not null references rustygpt.messages on delete cascade,
    version    integer not null,                       -- from 1
    content    text not null,
    edited_by  uuid not null references rustygpt.users,
    reason     text check (length(reason) between 1 and 500),
    replaced_at timestamptz not null default now(),
    primary key (message_id, version)
);

-- Answers to requests that carried an Idempotency-Key: the same request again gets the same answer.
create table rustygpt.idempotency_keys (
    user_id     uuid not null references rustygpt.users on delete cascade,
    key         text not null check (length(key) between 1 and 255),
    fingerprint text not null,                         -- of method, path and body
    answer      json,                                  -- null only inside the transaction that makes it
    created_at  timestamptz not null default now(),
    primary key (user_id, key)
);
create index idempotency_keys_age_idx on rustygpt.idempotency_keys (created_at);

do $$
declare
    table_name text;
begin
    foreach table_name in array array['message_versions', 'idempotency_keys'] loop
        execute format('alter table rustygpt.%I enable row level security', table_name);
        execute format('alter table rustygpt.%I force row level security', table_name);
        execute format('grant select, insert, update, delete on rustygpt.%I to rustygpt_system', table_name);
        execute format('create policy system_all on rustygpt.%I to rustygpt_system using (true) with check (true)', table_name);
    end loop;
end
$$;
grant select, insert on rustygpt.message_versions to rustygpt_api;
create policy api_select on rustygpt.message_versions for select to rustygpt_api
    using (exists (select 1 from rustygpt.messages m where m.id = message_id and m.deleted_at is null));
create policy api_insert on rustygpt.message_versions for insert to rustygpt_api
    with check (edited_by = rustygpt.actor_id()
                and exists (select 1 from rustygpt.messages m where m.id = message_id));

-- What a person said is changed by that person, or by an admin. What the assistant said is the system's.
revoke update on rustygpt.messages from rustygpt_api;
grant update (content, edited_at, deleted_at, deleted_by) on rustygpt.messages to rustygpt_api;
drop policy api_update on rustygpt.messages;
create policy api_update on rustygpt.messages for update to rustygpt_api
    using (role = 'user' and (rustygpt.actor_role(conversation_id) <= 'admin'
                              or author_id = rustygpt.actor_id() and rustygpt.actor_role(conversation_id) <= 'member'));
