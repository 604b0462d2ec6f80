create or replace function rustygpt.api_post_root(
    p_session bytea, p_idle interval, p_conversation_id uuid, p_content text, p_model text, p_deadline interval
) returns json language plpgsql volatile as $$
declare
    actor uuid := rustygpt.sign_in(p_session);
    ordinal integer;
    new_id uuid := rustygpt.uuid_v7();
begin
    perform rustygpt.touch_session(p_session, p_idle);
    perform rustygpt.require_role(p_conversation_id, 'member');
    perform rustygpt.lock_channel(p_conversation_id);
    update rustygpt.conversations set root_count = root_count + 1, updated_at = now()
     where id = p_conversation_id returning root_count into strict ordinal;
    insert into rustygpt.messages (id, conversation_id, root_id, author_id, role, state, content, path)
    values (new_id, p_conversation_id, new_id, actor, 'user', 'done', p_content, array[ordinal]);
    return rustygpt.publish_post(new_id, p_model, p_deadline);
end
$$;

create or replace function rustygpt.api_reply(
    p_session bytea, p_idle interval, p_parent_id uuid, p_content text, p_model text, p_deadline interval
) returns json language plpgsql volatile as $$
declare
    actor uuid := rustygpt.sign_in(p_session);
    parent rustygpt.messages;
    new_id uuid := rustygpt.uuid_v7();
begin
    perform rustygpt.touch_session(p_session, p_idle);
    parent := rustygpt.visible_message(p_parent_id);
    perform rustygpt.require_role(parent.conversation_id, 'member');
    perform rustygpt.lock_channel(parent.conversation_id);
    if (select state from rustygpt.messages where id = p_parent_id) <> 'done' then
        perform rustygpt.fail(409, 'RGP.CONFLICT', 'This answer is still being written. Wait for it, or stop it first.');
    end if;
    update rustygpt.messages set child_count = child_count + 1 where id = p_parent_id returning * into strict parent;
    insert into rustygpt.messages (id, conversation_id, root_id, parent_id, author_id, role, state, content, path)
    values (new_id, parent.conversation_id, parent.root_id, parent.id, actor, 'user', 'done', p_content,
            parent.path || parent.child_count);
    update rustygpt.conversations set updated_at = now() where id = parent.conversation_id;
    return rustygpt.publish_post(new_id, p_model, p_deadline);
end
$$;

-- Every writer of a conversation takes this lock first; so all wait in one order.
create or replace function rustygpt.lock_channel(p_channel_id uuid) returns void
language sql volatile as $$ select 1 from rustygpt.channels where id = p_channel_id for no key update $$;

-- A message that exists: 404 otherwise. Whether the actor may see it is for require_role to say.
create or replace function rustygpt.visible_message(p_message_id uuid) returns rustygpt.messages
language plpgsql stable as $$
declare
    found_message rustygpt.messages;
begin
    select * into found_message from rustygpt.messages where id = p_message_id;
    if not found then
        perform rustygpt.fail(404, 'RGP.NOT_FOUND', 'There is no such message.');
    end if;
    return found_message;
end
$$;

-- Tells readers of a new user message and queues the answer to it.
create or replace function rustygpt.publish_post(p_message_id uuid, p_model text, p_deadline interval) returns json
language plpgsql volatile as $$
declare
    posted rustygpt.messages;
    answer uuid;
    before_post text;
begin
    select * into strict posted from rustygpt.messages where id = p_message_id;
    before_post := rustygpt.channel_cursor(posted.conversation_id);
    if posted.parent_id is null then
        perform rustygpt.append_event(posted.conversation_id, 'thread.new', json_build_object(
            'conversation_id', posted.conversation_id, 'root_id', posted.root_id,
            'summary', rustygpt.thread_json(posted.root_id)));
    end if;
    perform rustygpt.append_event(posted.conversation_id, 'message.created',
        json_build_object('message', rustygpt.message_json(posted.id)), posted.id);
    answer := rustygpt.enqueue_turn(posted.id, p_model, p_deadline);
    perform rustygpt.append_event(posted.conversation_id, 'thread.activity', json_build_object(
        'conversation_id', posted.conversation_id, 'root_id', posted.root_id,
        'last_activity_at', rustygpt.instant(now())));
    return json_build_object(
        'message_id', posted.id, 'root_id', posted.root_id, 'conversation_id', posted.conversation_id,
        'parent_id', posted.parent_id, 'depth', cardinality(posted.path), 'assistant_message_id', answer,
        'cursor', before_post);
end
$$;

-- Newest activity first; p_before is the last page's last_activity_at and root_id, as 'instant,uuid'.
create or replace function rustygpt.api_list_threads(
    p_session bytea, p_conversation_id uuid, p_before_at timestamptz, p_before_id uuid, p_limit integer
) returns json language plpgsql volatile as $$
begin
    perform rustygpt.sign_in(p_session);
    perform rustygpt.require_role(p_conversation_id, 'viewer');
    return (
        with activity as (
            select root_id, max(created_at) as last_at from rustygpt.messages
             where conversation_id = p_conversation_id group by root_id),
        page as (
            select root_id, last_at from activity
             where p_before_at is null or (last_at, root_id) < (p_before_at, p_before_id)
             order by last_at desc, root_id desc limit p_limit + 1),
        shown as (select * from page order by last_at desc, root_id desc limit p_limit)
        select json_build_object(
            'threads', coalesce((select json_agg(rustygpt.thread_json(root_id) order by last_at desc, root_id desc)
                                   from shown), '[]'::json),
            'next_before', case when (select count(*) from page) > p_limit then (
                select rustygpt.instant(last_at) || ',' || root_id from shown order by last_at, root_id limit 1) end,
            'cursor', rustygpt.channel_cursor(p_conversation_id)));
end
$$;

-- Depth-first, parents before children, siblings in order of creation; p_after is exclusive.
-- One statement, hence one snapshot: text of streaming messages and the cursor belong together.
create or replace function rustygpt.api_get_tree(p_session bytea, p_root_id uuid, p_after integer[], p_limit integer)
returns json language plpgsql volatile as $$
declare
    root rustygpt.messages;
begin
    perform rustygpt.sign_in(p_session);
    root := rustygpt.visible_message(p_root_id);
    perform rustygpt.require_role(root.conversation_id, 'viewer');
    return (select rustygpt.tree_json(root.root_id, root.conversation_id, p_after, p_limit));
end
$$;

-- Stable, so that all its queries read the snapshot of the calling statement.
create or replace function rustygpt.tree_json(
    p_root_id uuid, p_conversation_id uuid, p_after integer[], p_limit integer
) returns json language sql stable as $$
    with page as (
        select id, path from rustygpt.messages
         where root_id = p_root_id and (p_after is null or path > p_after)
         order by path limit p_limit + 1),
    shown as (select * from page order by path limit p_limit)
    select json_build_object(
        'root_id', p_root_id, 'conversation_id', p_conversation_id,
        'messages', coalesce((select json_agg(rustygpt.message_json(id) order by path) from shown), '[]'::json),
        'next_after', case when (select count(*) from page) > p_limit then (
            select rustygpt.dotted(path) from shown order by path desc limit 1) end,
        'cursor', rustygpt.channel_cursor(p_conversation_id))
$$;

-- Stops an answer, from any device. A running one is told by its next append, or at once by the NOTIFY.
create or replace function rustygpt.api_cancel(p_session bytea, p_message_id uuid) returns json
language plpgsql volatile as $$
declare
    target rustygpt.messages;
begin
    perform rustygpt.sign_in(p_session);
    target := rustygpt.visible_message(p_message_id);
    perform rustygpt.require_role(target.conversation_id, 'member');
    if target.role <> 'assistant' then
        perform rustygpt.fail(400, 'RGP.VALIDATION', 'Only an answer of the assistant can be stopped.');
    end if;
    return json_build_object('message_id', p_message_id, 'status', rustygpt.cancel_turn(p_message_id));
end
$$;

create or replace function rustygpt.cancel_turn(p_message_id uuid) returns text
language plpgsql volatile as $$
declare
    turn rustygpt.turns;
begin
    select * into strict turn from rustygpt.turns where message_id = p_message_id;
    perform rustygpt.lock_channel(turn.conversation_id);
    select * into strict turn from rustygpt.turns where message_id = p_message_id for update;
    if turn.state = 'done' then
        return case when (select finish_reason from rustygpt.messages where id = p_message_id) = 'cancelled'
               then 'cancelled' else 'completed' end;
    elsif turn.state = 'queued' or turn.lease_expires_at < now() then
        perform rustygpt.end_turn(p_message_id, 'cancelled');
        return 'cancelled';
    end if;
    update rustygpt.turns set cancel_requested = true where message_id = p_message_id;
    perform pg_notify('rustygpt_cancels', p_message_id::text);
    return 'cancelling';
end
$$;
