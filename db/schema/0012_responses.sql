-- Answers that were asked for over /v1 and are kept for whoever asked. The message of one lies alone in a conversation
-- without participants, which no list, search, stream or inbox shows; or, where the request named a conversation, in a
-- thread of that one.
create table rustygpt.responses (
    message_id uuid primary key references rustygpt.messages on delete cascade,
    user_id    uuid not null references rustygpt.users on delete cascade,
    kind       text not null check (kind in ('chat', 'response')),    -- the API by which it is known
    model      text not null,
    shown      json not null,                -- what answers echo: metadata, instructions and the like
    background boolean not null,
    created_at timestamptz not null default now()
);
-- Ids are in order of time: pages of somebody's answers, newest or oldest first.
create index responses_user_idx on rustygpt.responses (user_id, kind, message_id);
create index responses_age_idx on rustygpt.responses (created_at);

alter table rustygpt.responses enable row level security;
alter table rustygpt.responses force row level security;
grant select, insert, update, delete on rustygpt.responses to rustygpt_system;
create policy system_all on rustygpt.responses to rustygpt_system using (true) with check (true);
grant select on rustygpt.responses to rustygpt_api;
create policy api_select on rustygpt.responses for select to rustygpt_api using (user_id = rustygpt.actor_id());

-- The log of a stored answer, which ends with it.
alter table rustygpt.channels drop constraint channels_kind_check;
alter table rustygpt.channels add constraint channels_kind_check check (kind in ('conversation', 'user', 'answer'));

alter table rustygpt.turns
    add column request json,                 -- an Ask (deployments/generation.py); null: the conversation's settings
    add column error   text;                 -- what its readers were told went wrong
