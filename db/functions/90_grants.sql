-- Who owns and who may call each function follows from its name; nothing else grants a right to run code.
--   api_*      run as rustygpt_api (row-level security for the signed-in user); the app login may call them
--   worker_*   run as rustygpt_system; the worker login may call them
--   stream_*   run as rustygpt_system; the app login may call them (the Streamer)
--   others     run as rustygpt_system; only the two owners may call them
-- Functions that only compute from their arguments keep the caller's rights.
do $$
declare
    f record;
    runs_as text;
begin
    for f in
        select p.oid::regprocedure as signature, p.proname as name
          from pg_proc p join pg_namespace n on n.oid = p.pronamespace
         where n.nspname = 'rustygpt'
    loop
        execute format('revoke all on function %s from public', f.signature);
        execute format('alter function %s set search_path = rustygpt, pg_temp', f.signature);
        if f.name in ('fail', 'uuid_v7', 'instant', 'cursor_text', 'actor_id') then
            execute format('grant execute on function %s to rustygpt_api, rustygpt_system', f.signature);
            continue;
        end if;
        runs_as := case when f.name like 'api\_%' then 'rustygpt_api' else 'rustygpt_system' end;
        execute format('grant execute on function %s to rustygpt_api, rustygpt_system', f.signature);
        execute format('alter function %s security definer', f.signature);
        execute format('alter function %s owner to %I', f.signature, runs_as);
        if f.name like 'api\_%' or f.name like 'stream\_%' then
            execute format('grant execute on function %s to rustygpt_app', f.signature);
        elsif f.name like 'worker\_%' then
            execute format('grant execute on function %s to rustygpt_worker', f.signature);
        end if;
    end loop;
end
$$;
