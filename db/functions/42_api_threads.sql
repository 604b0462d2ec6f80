-- p_models are the models that are served, the default first.
create or replace function rustygpt.api_post_root(
    p_session bytea, p_idle interval, p_once text[], p_conversation_id uuid, p_content text,
    p_models text[], p_deadline interval
) returns json language plpgsql volatile as $$
declare
    actor uuid := rustygpt.sign_in(p_session);
    replay json := rustygpt.recall(actor, p_once);
    ordinal integer;
    new_id uuid := rustygpt.uuid_v7();
begin
    if replay is not null then
        return replay;
    end if;
    perform rustygpt.touch_session(p_session, p_idle);
    perform rustygpt.require_role(p_conversation_id, 'member');
    perform rustygpt.lock_channel(p_conversation_id);
    update rustygpt.conversations set root_count = root_count + 1
     where id = p_conversation_id returning root_count into strict ordinal;
    insert into rustygpt.messages (id, conversation_id, root_id, author_id, role, state, content, path, seq)
    values (new_id, p_conversation_id, new_id, actor, 'user', 'done', p_content, array[ordinal],
            rustygpt.next_seq(p_conversation_id));
    return rustygpt.remember(actor, p_once, rustygpt.publish_post(new_id, p_models, p_deadline));
end
$$;

create or replace function rustygpt.api_reply(
    p_session bytea, p_idle interval, p_once text[], p_parent_id uuid, p_content text,
    p_models text[], p_deadline interval
) returns json language plpgsql volatile as $$
declare
    actor uuid := rustygpt.sign_in(p_session);
    replay json := rustygpt.recall(actor, p_once);
    parent rustygpt.messages;
    new_id uuid := rustygpt.uuid_v7();
begin
    if replay is not null then
        return replay;
    end if;
    perform rustygpt.touch_session(p_session, p_idle);
    parent := rustygpt.message_to_reply_to(p_parent_id);
    insert into rustygpt.messages (id, conversation_id, root_id, parent_id, author_id, role, state, content, path, seq)
    values (new_id, parent.conversation_id, parent.root_id, parent.id, actor, 'user', 'done', p_content,
            rustygpt.next_path(parent.id), rustygpt.next_seq(parent.conversation_id));
    return rustygpt.remember(actor, p_once, rustygpt.publish_post(new_id, p_models, p_deadline));
end
$$;

-- Every writer of a conversation takes this lock first; so all wait in one order.
create or replace function rustygpt.lock_channel(p_channel_id uuid) returns void
language sql volatile as $$ select 1 from rustygpt.channels where id = p_channel_id for no key update $$;

-- The place of a message's next child. Under the channel's lock.
create or replace function rustygpt.next_path(p_parent_id uuid) returns integer[]
language sql volatile as $$
    update rustygpt.messages set child_count = child_count + 1 where id = p_parent_id returning path || child_count
$$;

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

-- A message that the actor may change something about, as it is once nobody else can change it.
create or replace function rustygpt.locked_message(p_message_id uuid, p_least rustygpt.conversation_role)
returns rustygpt.messages language plpgsql volatile as $$
declare
    found_message rustygpt.messages := rustygpt.visible_message(p_message_id);
begin
    perform rustygpt.require_role(found_message.conversation_id, p_least);
    perform rustygpt.lock_channel(found_message.conversation_id);
    -- Again: the right may have ended, and the message changed, while the lock was waited for.
    perform rustygpt.require_role(found_message.conversation_id, p_least);
    return rustygpt.visible_message(p_message_id);
end
$$;

-- The same for one that is to be replied to: 409 where that cannot be.
create or replace function rustygpt.message_to_reply_to(p_message_id uuid) returns rustygpt.messages
language plpgsql volatile as $$
declare
    parent rustygpt.messages := rustygpt.locked_message(p_message_id, 'member');
begin
    if parent.state <> 'done' then
        perform rustygpt.fail(409, 'RGP.CONFLICT', 'This answer is still being written. Wait for it, or stop it first.');
    elsif parent.deleted_at is not null then
        perform rustygpt.fail(409, 'RGP.CONFLICT', 'This message was deleted. Reply to another one.');
    end if;
    return parent;
end
$$;

-- Tells readers of a new user message, and queues the answer to it where the assistant is to answer. With p_request
-- (51_responses.sql) it is to answer in any case, by the first of p_models.
create or replace function rustygpt.publish_post(
    p_message_id uuid, p_models text[], p_deadline interval, p_request json default null
) returns json language plpgsql volatile as $$
declare
    posted rustygpt.messages;
    model text;
    answer uuid;
    before_post text;
begin
    select * into strict posted from rustygpt.messages where id = p_message_id;
    before_post := rustygpt.channel_cursor(posted.conversation_id);
    if posted.parent_id is null then
        update rustygpt.messages set last_activity_at = created_at where id = p_message_id;
        perform rustygpt.append_event(posted.conversation_id, 'thread.new', json_build_object(
            'conversation_id', posted.conversation_id, 'root_id', posted.root_id,
            'summary', rustygpt.thread_json(posted.root_id)));
    end if;
    perform rustygpt.append_event(posted.conversation_id, 'message.created',
        json_build_object('message', rustygpt.message_json(posted.id)), posted.id);
    if p_request is not null then
        model := p_models[1];
    elsif rustygpt.is_answered(posted.conversation_id, posted.content) then
        model := rustygpt.answering_model(posted.conversation_id, p_models);
    end if;
    if model is not null then
        answer := rustygpt.enqueue_turn(posted.id, model, p_deadline, p_request);
    end if;
    perform rustygpt.touch_thread(posted.conversation_id, posted.root_id);
    perform rustygpt.end_typing(posted.conversation_id, case when posted.parent_id is not null then posted.root_id end,
                                posted.author_id);
    perform rustygpt.note_presence(posted.author_id);   -- before inboxes are locked
    perform rustygpt.tell_unread(posted.conversation_id, posted.root_id);
    return rustygpt.post_json(posted, answer, model, before_post);
end
$$;

create or replace function rustygpt.post_json(
    p_posted rustygpt.messages, p_answer_id uuid, p_model text, p_cursor text
) returns json language sql stable as $$
    select json_build_object(
        'message_id', p_posted.id, 'root_id', p_posted.root_id, 'conversation_id', p_posted.conversation_id,
        'parent_id', p_posted.parent_id, 'depth', cardinality(p_posted.path),
        'assistant_message_id', p_answer_id, 'model', p_model, 'cursor', p_cursor)
$$;

-- Whether the assistant answers a message of a person.
create or replace function rustygpt.is_answered(p_conversation_id uuid, p_content text) returns boolean
language sql stable as $$
    select case reply_mode
           when 'always' then true
           when 'mentioned' then p_content ~* '(^|[^[:alnum:]_@.])@assistant($|[^[:alnum:]_-])'
           else false end
      from rustygpt.conversations where id = p_conversation_id
$$;

-- The conversation's model, or the default one. A chosen one that is gone is not replaced behind people's backs.
create or replace function rustygpt.answering_model(p_conversation_id uuid, p_models text[]) returns text
language plpgsql stable as $$
declare
    chosen text;
begin
    select model into chosen from rustygpt.conversations where id = p_conversation_id;
    if chosen <> all (p_models) then
        perform rustygpt.fail(409, 'RGP.LLM.CONFIG', format(
            'The model %s of this conversation is not served any more. Choose another one in its settings.', chosen));
    end if;
    return coalesce(chosen, p_models[1]);
end
$$;

-- Latest activity first; p_before is the last page's last_activity_at and root_id, as 'instant,uuid'.
create or replace function rustygpt.api_list_threads(
    p_session bytea, p_conversation_id uuid, p_before_at timestamptz, p_before_id uuid, p_limit integer
) returns json language plpgsql volatile as $$
begin
    perform rustygpt.sign_in(p_session);
    perform rustygpt.require_role(p_conversation_id, 'viewer');
    return rustygpt.threads_page(p_conversation_id, p_before_at, p_before_id, p_limit);
end
$$;

-- The system's work, since a policy would be asked for each thread: 1.5 ms of 200. Its plan is one for all values: a
-- mark that may be null would be no condition for the index, hence the one that comes before all.
create or replace function rustygpt.threads_page(
    p_conversation_id uuid, p_before_at timestamptz, p_before_id uuid, p_limit integer
) returns json language sql stable as $$
    with page as (
        select id, last_activity_at from rustygpt.messages
         where conversation_id = p_conversation_id and parent_id is null
           and (last_activity_at, id) < (coalesce(p_before_at, 'infinity'),
                                         coalesce(p_before_id, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
         order by last_activity_at desc, id desc limit p_limit + 1),
    shown as (select * from page order by last_activity_at desc, id desc limit p_limit)
    select json_build_object(
        'threads', coalesce((select json_agg(rustygpt.thread_json(id) order by last_activity_at desc, id desc)
                               from shown), '[]'::json),
        'next_before', case when (select count(*) from page) > p_limit then (
            select rustygpt.instant(last_activity_at) || ',' || id from shown
             order by last_activity_at, id limit 1) end,
        'cursor', rustygpt.channel_cursor(p_conversation_id))
$$;

-- Depth-first, parents before children, siblings in order of creation. p_after and p_before are exclusive; with
-- p_before alone the page ends just before it. One statement, hence one snapshot: text of streaming messages and
-- the cursor belong together.
create or replace function rustygpt.api_get_tree(
    p_session bytea, p_root_id uuid, p_after uuid, p_before uuid, p_limit integer
) returns json language plpgsql volatile as $$
declare
    root rustygpt.messages;
begin
    perform rustygpt.sign_in(p_session);
    root := rustygpt.visible_message(p_root_id);
    perform rustygpt.require_role(root.conversation_id, 'viewer');
    return (select rustygpt.tree_json(root.root_id, root.conversation_id,
        rustygpt.tree_place(root.root_id, p_after), rustygpt.tree_place(root.root_id, p_before), p_limit));
end
$$;

-- Where in its thread a page mark is: a message of it, deleted or not. Null for none.
create or replace function rustygpt.tree_place(p_root_id uuid, p_mark uuid) returns integer[]
language plpgsql stable as $$
declare
    place integer[];
begin
    if p_mark is null then
        return null;
    end if;
    select path into place from rustygpt.messages where id = p_mark and root_id = p_root_id;
    if place is null then
        perform rustygpt.fail(400, 'RGP.VALIDATION', 'This is no page mark of this thread. '
            'Send `next_after` or `previous_before` of the page that you have.');
    end if;
    return place;
end
$$;

-- Stable, so that all its queries read the snapshot of the calling statement. Its plan is one for all values: a mark
-- that may be null would be no condition for the index, hence the path before all others.
create or replace function rustygpt.tree_json(
    p_root_id uuid, p_conversation_id uuid, p_after integer[], p_before integer[], p_limit integer
) returns json language sql stable as $$
    with forwards as (
        select id, path, row_number() over (order by path) as place from rustygpt.messages
         where p_before is null and root_id = p_root_id and path > coalesce(p_after, '{}')
         order by path limit p_limit),
    backwards as (
        select id, path, -row_number() over (order by path desc) as place from rustygpt.messages
         where p_before is not null and root_id = p_root_id and path < p_before and path > coalesce(p_after, '{}')
         order by path desc limit p_limit),
    -- In order of place from here on: paths of a thread that is thousands of messages deep are slow to compare.
    shown as (select * from forwards union all select * from backwards),
    first as (select id, path from shown order by place limit 1),
    last as (select id, path from shown order by place desc limit 1)
    select json_build_object(
        'root_id', p_root_id, 'conversation_id', p_conversation_id,
        'messages', coalesce((select json_agg(rustygpt.message_json(id) order by place) from shown), '[]'::json),
        'next_after', (select id from last where exists (
            select 1 from rustygpt.messages where root_id = p_root_id and path > last.path)),
        'previous_before', (select id from first where exists (
            select 1 from rustygpt.messages where root_id = p_root_id and path < first.path)),
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
    select * into turn from rustygpt.turns where message_id = p_message_id;
    if not found then
        return 'completed';   -- it was imported
    end if;
    perform rustygpt.lock_channel(turn.conversation_id);
    select * into turn from rustygpt.turns where message_id = p_message_id for update;
    if not found then
        return 'completed';   -- it was deleted just now
    elsif turn.state = 'done' then
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
