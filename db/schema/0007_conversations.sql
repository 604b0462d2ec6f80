-- An invitation to a conversation: for whoever has this e-mail address and holds the token.
--   live ──accept──> accepted
--     ├────revoke──> revoked
--     └──(time)────> expired     (revoked_at is set later, when another invitation takes its place)
create table rustygpt.invites (
    id              uuid primary key,
    conversation_id uuid not null references rustygpt.conversations on delete cascade,
    email           text not null check (length(email) between 3 and 254),
    role            rustygpt.conversation_role not null check (role <> 'owner'),
    token_hash      bytea not null unique check (length(token_hash) = 32),   -- SHA-256; the token is never stored
    invited_by      uuid not null references rustygpt.users,
    created_at      timestamptz not null default now(),
    expires_at      timestamptz not null,
    accepted_at     timestamptz,
    accepted_by     uuid references rustygpt.users,
    revoked_at      timestamptz,
    check (accepted_at is null or revoked_at is null),
    check ((accepted_at is null) = (accepted_by is null))
);
create unique index invites_live_key on rustygpt.invites (conversation_id, lower(email))
    where accepted_at is null and revoked_at is null;
create index invites_conversation_idx on rustygpt.invites (conversation_id, id desc);

alter table rustygpt.invites enable row level security;
alter table rustygpt.invites force row level security;
grant select, insert, update, delete on rustygpt.invites to rustygpt_system;
create policy system_all on rustygpt.invites to rustygpt_system using (true) with check (true);
-- Accepting is the system's work: the person invited has no role yet.
grant select (id, conversation_id, email, role, invited_by, created_at, expires_at, accepted_at, accepted_by, revoked_at),
      insert (id, conversation_id, email, role, token_hash, invited_by, expires_at),
      update (revoked_at) on rustygpt.invites to rustygpt_api;
create policy api_select on rustygpt.invites for select to rustygpt_api
    using (rustygpt.actor_role(conversation_id) <= 'admin');
create policy api_insert on rustygpt.invites for insert to rustygpt_api
    with check (rustygpt.actor_role(conversation_id) <= 'admin' and invited_by = rustygpt.actor_id());
create policy api_update on rustygpt.invites for update to rustygpt_api
    using (rustygpt.actor_role(conversation_id) <= 'admin');

-- Who made a conversation and left it sees it no more; who did it and when is not rewritten. Deleting is the system's.
drop policy api_select on rustygpt.conversations;
create policy api_select on rustygpt.conversations for select to rustygpt_api
    using (rustygpt.actor_role(id) is not null);
revoke update on rustygpt.conversations from rustygpt_api;
grant update (title, is_group, archived_at, model, system_prompt, temperature, reply_mode, root_count, updated_at)
    on rustygpt.conversations to rustygpt_api;

-- Nobody makes an owner, or ends or changes one, but an owner. Of oneself one may only end the participation.
revoke update on rustygpt.participants from rustygpt_api;
grant update (role, joined_at, left_at) on rustygpt.participants to rustygpt_api;
drop policy api_insert on rustygpt.participants;
create policy api_insert on rustygpt.participants for insert to rustygpt_api
    with check (rustygpt.actor_role(conversation_id) <= case role when 'owner' then 'owner' else 'admin' end::rustygpt.conversation_role);
drop policy api_update on rustygpt.participants;
create policy api_update on rustygpt.participants for update to rustygpt_api
    using (user_id = rustygpt.actor_id()
           or rustygpt.actor_role(conversation_id)
              <= case when role = 'owner' and left_at is null then 'owner' else 'admin' end::rustygpt.conversation_role)
    with check ((user_id = rustygpt.actor_id() and left_at is not null)
                or rustygpt.actor_role(conversation_id) <= case role when 'owner' then 'owner' else 'admin' end::rustygpt.conversation_role);

-- What a message is found by. Written with the content: of an answer, once, at its end. Words are compared
-- without regard to case and as they are ('simple'), whatever the language. Scripts that put no spaces between
-- words are cut into their characters, which U+0001 keeps apart: a query for several is a phrase. Of a message
-- only the first 100,000 characters are found: a tsvector holds less than 1 MiB, and an answer must never fail to
-- end because of it.
alter table rustygpt.messages add column search tsvector generated always as (
    to_tsvector('simple', regexp_replace(left(content, 100000),
        '[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]',
        E'\u0001\\&\u0001', 'g'))) stored;
-- Without the pending list, which an unlucky message empties for all: measured with answers of 300 words, 2 ms each
-- instead of 1 ms and now and then 600 ms under the conversation's lock.
create index messages_search_idx on rustygpt.messages using gin (search) with (fastupdate = off);

-- An imported message of a person belongs to whoever imported it: nobody can put words into others' mouths.
-- The name that stood in the file is kept beside it, and shown as imported.
alter table rustygpt.messages
    add column author_label text
        check (author_label is null or (length(author_label) between 1 and 128 and role = 'user'));
alter table rustygpt.conversations add column imported_at timestamptz;
drop policy api_insert on rustygpt.messages;
create policy api_insert on rustygpt.messages for insert to rustygpt_api
    with check (
        rustygpt.actor_role(conversation_id) <= 'member'
        and role = 'user' and author_id = rustygpt.actor_id() and author_label is null and state = 'done'
    );
