-- Who may touch which row. `rustygpt_api` runs as the signed-in user named by app.current_user_id,
-- which every api_* function sets from the session before it does anything else.
-- `rustygpt_system` does what no user may: writes events, assistant messages and turns.

create function rustygpt.actor_id() returns uuid
language sql stable
as $$ select nullif(current_setting('app.current_user_id', true), '')::uuid $$;

-- Definer, so that the participants' own policy can use it without recursion.
create function rustygpt.actor_role(p_conversation_id uuid) returns rustygpt.conversation_role
language sql stable
as $$
    select role from rustygpt.participants
    where conversation_id = p_conversation_id and user_id = rustygpt.actor_id() and left_at is null
$$;

do $$
declare
    table_name text;
begin
    foreach table_name in array array[
        'users', 'sessions', 'conversations', 'participants', 'messages', 'channels', 'events', 'turns'
    ] loop
        execute format('alter table rustygpt.%I enable row level security', table_name);
        execute format('alter table rustygpt.%I force row level security', table_name);
        execute format('grant select, insert, update, delete on rustygpt.%I to rustygpt_system', table_name);
        execute format('create policy system_all on rustygpt.%I to rustygpt_system using (true) with check (true)', table_name);
    end loop;
end
$$;

grant select (id, email, username, display_name, is_admin, disabled_at, created_at) on rustygpt.users to rustygpt_api;
create policy api_select on rustygpt.users for select to rustygpt_api using (rustygpt.actor_id() is not null);

grant select, insert, update on rustygpt.conversations to rustygpt_api;
create policy api_select on rustygpt.conversations for select to rustygpt_api
    using (rustygpt.actor_role(id) is not null or created_by = rustygpt.actor_id());
create policy api_insert on rustygpt.conversations for insert to rustygpt_api
    with check (created_by = rustygpt.actor_id());
create policy api_update on rustygpt.conversations for update to rustygpt_api
    using (rustygpt.actor_role(id) <= 'member') with check (rustygpt.actor_role(id) <= 'member');

grant select, insert, update on rustygpt.participants to rustygpt_api;
create policy api_select on rustygpt.participants for select to rustygpt_api
    using (rustygpt.actor_role(conversation_id) is not null);
create policy api_insert on rustygpt.participants for insert to rustygpt_api
    with check (rustygpt.actor_role(conversation_id) <= 'admin');
create policy api_update on rustygpt.participants for update to rustygpt_api
    using (rustygpt.actor_role(conversation_id) <= 'admin' or user_id = rustygpt.actor_id())
    with check (rustygpt.actor_role(conversation_id) <= 'admin' or left_at is not null);

-- A user writes only in their own name, only user messages, and only as member or above.
grant select, insert, update (child_count) on rustygpt.messages to rustygpt_api;
create policy api_select on rustygpt.messages for select to rustygpt_api
    using (rustygpt.actor_role(conversation_id) is not null);
create policy api_insert on rustygpt.messages for insert to rustygpt_api
    with check (
        rustygpt.actor_role(conversation_id) <= 'member'
        and role = 'user' and author_id = rustygpt.actor_id() and state = 'done'
    );
create policy api_update on rustygpt.messages for update to rustygpt_api
    using (rustygpt.actor_role(conversation_id) <= 'member');

grant select on rustygpt.channels, rustygpt.events to rustygpt_api;
create policy api_select on rustygpt.channels for select to rustygpt_api
    using (id = rustygpt.actor_id() or rustygpt.actor_role(id) is not null);
create policy api_select on rustygpt.events for select to rustygpt_api
    using (channel_id = rustygpt.actor_id() or rustygpt.actor_role(channel_id) is not null);
