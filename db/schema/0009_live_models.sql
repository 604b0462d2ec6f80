-- When a replica of a model last looked for turns: a turn whose model nobody runs is not waited for in vain.
create table rustygpt.live_models (
    model   text primary key,
    seen_at timestamptz not null default now()
);
alter table rustygpt.live_models enable row level security;
alter table rustygpt.live_models force row level security;
grant select, insert, update, delete on rustygpt.live_models to rustygpt_system;
create policy system_all on rustygpt.live_models to rustygpt_system using (true) with check (true);
