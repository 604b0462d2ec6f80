-- The heartbeats of the replicas of models: each announces itself once a second from the moment it reaches the database
-- until it ends (31_replicas.sql). A killed or hung replica falls silent, a busy one does not.
--   starting  it loads its model, or checks how the model runs on its machine; detail: which step
--   ready     it has verified that it computes right, and answers
--   unusable  it cannot run its model; detail: why
-- starting -> ready, starting -> unusable, ready -> unusable. No state: the replica has departed, or never came.
-- Unlogged: a heartbeat costs no write to disk. After a crash of the server the table is empty, and within a second
-- all who live have announced themselves again.
create unlogged table rustygpt.model_replicas (
    model   text not null,
    replica text not null,
    state   text not null check (state in ('starting', 'ready', 'unusable')),
    detail  text not null,
    seen_at timestamptz not null default now(),
    primary key (model, replica)
-- Room for the next versions of a row beside it: no index changes with a heartbeat.
) with (fillfactor = 50);
alter table rustygpt.model_replicas enable row level security;
alter table rustygpt.model_replicas force row level security;
grant select, insert, update, delete on rustygpt.model_replicas to rustygpt_system;
create policy system_all on rustygpt.model_replicas to rustygpt_system using (true) with check (true);
