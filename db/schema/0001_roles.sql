-- Three group roles. None of them can log in; `grants.sql` ties functions to them.
--   rustygpt_api     owns the api_* functions. Every row it touches passes row-level security.
--   rustygpt_system  owns the internal and worker_* functions. Its policies let it see every row.
--   rustygpt_app     what the Gateway's and the Streamer's login role is a member of: may execute api_*.
--   rustygpt_worker  what the Model replicas' login role is a member of: may execute worker_*.
-- The role that owns the schema has no policy of its own: with FORCE it reads nothing.
do $$
declare
    role_name text;
begin
    foreach role_name in array array['rustygpt_api', 'rustygpt_system', 'rustygpt_app', 'rustygpt_worker'] loop
        begin
            execute format('create role %I nologin', role_name);
        exception
            -- Roles belong to the server, not to the database: another database may have made them.
            when duplicate_object or unique_violation then null;
        end;
        -- Needed to hand over functions where the schema's owner is no superuser.
        if role_name in ('rustygpt_api', 'rustygpt_system')
            and not (select rolsuper from pg_roles where rolname = current_user) then
            execute format('grant %I to %I', role_name, current_user);
        end if;
    end loop;
end
$$;

create schema if not exists rustygpt;
grant usage on schema rustygpt to rustygpt_api, rustygpt_system, rustygpt_app, rustygpt_worker;
-- A role must hold CREATE on the schema to be given a function in it.
grant create on schema rustygpt to rustygpt_api, rustygpt_system;

-- Passwords of this database's login roles. Nobody but the owner may read it.
create table rustygpt.secrets (
    name  text primary key,
    value text not null
);
