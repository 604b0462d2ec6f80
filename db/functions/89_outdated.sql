-- `create or replace` with other arguments makes a second function beside the first. What no file of this folder
-- defines any more, or defines with other arguments, goes. (A row of pg_proc that this transaction wrote has its id.)
do $$
declare
    outdated record;
begin
    for outdated in
        select p.oid::regprocedure as signature
          from pg_proc p join pg_namespace n on n.oid = p.pronamespace
         where n.nspname = 'rustygpt' and p.xmin <> pg_current_xact_id()::xid
    loop
        execute format('drop function %s', outdated.signature);
    end loop;
end
$$;
