-- Which replicas of the models live, by their own word.

-- A replica's heartbeat. Rows of those that have been silent for a minute go in passing.
create or replace function rustygpt.worker_announce(p_model text, p_replica text, p_state text, p_detail text)
returns void language sql volatile as $$
    insert into rustygpt.model_replicas (model, replica, state, detail) values (p_model, p_replica, p_state, p_detail)
    on conflict (model, replica) do update
       set state = excluded.state, detail = excluded.detail, seen_at = now();
    -- One that wakes up just now holds the lock of its row, and keeps it.
    delete from rustygpt.model_replicas where (model, replica) in (
        select model, replica from rustygpt.model_replicas
         where seen_at < now() - interval '1 minute' for update skip locked);
$$;

-- The end of a replica that ends in order.
create or replace function rustygpt.worker_depart(p_model text, p_replica text) returns void
language sql volatile as $$
    delete from rustygpt.model_replicas where model = p_model and replica = p_replica
$$;

create or replace function rustygpt.api_model_readiness(p_models text[]) returns json
language sql stable as $$ select rustygpt.model_readiness(p_models) $$;

-- For each model: `ready`, whether a replica is; `states`, how many replicas are in each; `detail`, the newest of an
-- unusable replica, else of a starting one, else null; `silent_seconds`, the newest heartbeat's age, or null.
create or replace function rustygpt.model_readiness(p_models text[]) returns json
language sql stable as $$
    with known as (
        select *,
               -- Three heartbeats, of which two may be late or lost. A replica that is killed counts for so long, and
               -- whoever asks hears of it within 5 seconds.
               seen_at > now() - interval '3 seconds' as is_fresh
          from rustygpt.model_replicas where model = any (p_models)),
    counted as (
        select model, json_object_agg(state, replicas) as states, bool_or(state = 'ready') as ready
          from (select model, state, count(*) as replicas from known where is_fresh group by model, state) by_state
         group by model)
    select coalesce(json_object_agg(asked.model, json_build_object(
               'ready', coalesce(ready, false),
               'states', coalesce(states, '{}'::json),
               'detail', (select detail from known k
                           where k.model = asked.model and is_fresh and state <> 'ready'
                           order by state = 'unusable' desc, seen_at desc limit 1),
               'silent_seconds', (select min(greatest(0, extract(epoch from now() - seen_at))) from known k
                                   where k.model = asked.model))), '{}'::json)
      from (select distinct unnest(p_models) as model) asked left join counted using (model)
$$;
