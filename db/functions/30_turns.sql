-- Everything that writes an assistant message.

-- Makes the assistant's message under p_parent_id and the turn that will write it; tells readers of both.
create or replace function rustygpt.enqueue_turn(p_parent_id uuid, p_model text, p_deadline interval) returns uuid
language plpgsql volatile as $$
declare
    parent rustygpt.messages;
    answer uuid := rustygpt.uuid_v7();
begin
    update rustygpt.messages set child_count = child_count + 1 where id = p_parent_id returning * into strict parent;
    insert into rustygpt.messages (id, conversation_id, root_id, parent_id, role, state, path)
    values (answer, parent.conversation_id, parent.root_id, parent.id, 'assistant', 'queued',
            parent.path || parent.child_count);
    insert into rustygpt.turns (message_id, conversation_id, model, deadline_at)
    values (answer, parent.conversation_id, p_model, now() + p_deadline);
    perform rustygpt.append_event(parent.conversation_id, 'message.created',
        json_build_object('message', rustygpt.message_json(answer)), answer);
    return answer;
end
$$;

-- Ends a turn exactly once: stores the text that readers were shown, appends the one terminal event.
-- Returns false where the turn has ended already.
create or replace function rustygpt.end_turn(
    p_message_id uuid, p_reason text, p_usage json default null, p_error text default null
) returns boolean language plpgsql volatile as $$
declare
    written rustygpt.messages;
    place uuid;
begin
    select conversation_id into place from rustygpt.turns where message_id = p_message_id;
    -- The channel before the turn: the order in which every appender locks.
    perform 1 from rustygpt.channels where id = place for no key update;
    update rustygpt.turns
       set state = 'done', owner = null, lease_expires_at = null, finished_at = now()
     where message_id = p_message_id and state <> 'done';
    if not found then
        return false;
    end if;
    update rustygpt.messages
       set state = 'done', finish_reason = p_reason, usage = p_usage, content = rustygpt.streamed_text(p_message_id)
     where id = p_message_id returning * into strict written;
    perform rustygpt.append_event(written.conversation_id, 'message.done', json_build_object(
        'message_id', written.id, 'root_id', written.root_id, 'conversation_id', written.conversation_id,
        'finish_reason', p_reason, 'usage', p_usage), written.id);
    if p_error is not null then
        perform rustygpt.append_event(written.conversation_id, 'error', json_build_object(
            'code', case p_reason when 'timeout' then 'assistant_timeout' else 'assistant_stream_error' end,
            'message', p_error, 'message_id', written.id), written.id);
    end if;
    perform rustygpt.append_event(written.conversation_id, 'thread.activity', json_build_object(
        'conversation_id', written.conversation_id, 'root_id', written.root_id,
        'last_activity_at', rustygpt.instant(now())));
    update rustygpt.conversations set updated_at = now() where id = written.conversation_id;
    return true;
end
$$;

-- Takes the lease of up to p_limit turns that nobody works on: new ones, and those whose lease ran out.
-- p_only names one turn that the caller was handed; without it, turns younger than p_patience are left to
-- the replica that the Gateway chose for them. A sixth attempt is not made: the turn ends with an error.
create or replace function rustygpt.worker_claim(
    p_model text, p_owner text, p_lease interval, p_limit integer, p_only uuid, p_patience interval
) returns json language plpgsql volatile as $$
declare
    open_turn record;
    taken rustygpt.turns;
    claims json[] := '{}';
begin
    for open_turn in
        select oldest.* from (
            select message_id, conversation_id, epoch, deadline_at from rustygpt.turns
             where model = p_model and (p_only is null or message_id = p_only)
               and ((state = 'queued' and (p_only is not null or created_at < now() - p_patience))
                    or (state = 'running' and lease_expires_at < now()))
             order by created_at limit p_limit) oldest
         -- The order in which worker_append locks channels: no deadlock between the two.
         order by conversation_id, message_id
    loop
        if open_turn.epoch >= 5 then
            perform rustygpt.end_turn(open_turn.message_id, 'error', null,
                'The model failed on this message several times. Ask again, or choose another model.');
            continue;
        end if;
        perform 1 from rustygpt.channels where id = open_turn.conversation_id for no key update;
        update rustygpt.turns
           set state = 'running', owner = p_owner, epoch = epoch + 1, lease_expires_at = now() + p_lease
         where message_id = open_turn.message_id and epoch = open_turn.epoch and state <> 'done'
           and (state = 'queued' or lease_expires_at < now())
        returning * into taken;
        if not found then
            continue;   -- another replica was faster
        end if;
        if taken.cancel_requested then
            perform rustygpt.end_turn(taken.message_id, 'cancelled');
            continue;
        end if;
        if taken.deadline_at < now() then
            perform rustygpt.end_turn(taken.message_id, 'timeout', null, 'The answer took longer than allowed.');
            continue;
        end if;
        update rustygpt.messages set state = 'streaming' where id = taken.message_id;
        claims := claims || (
            select json_build_object(
                'message_id', m.id, 'conversation_id', m.conversation_id, 'root_id', m.root_id,
                'parent_id', m.parent_id, 'depth', cardinality(m.path), 'epoch', taken.epoch,
                'delta_count', taken.delta_count,
                'seconds_left', extract(epoch from taken.deadline_at - now()),
                'token_ids', rustygpt.streamed_token_ids(m.id),
                'history', (
                    select json_agg(json_build_object('role', a.role, 'content', a.content) order by a.path)
                      from rustygpt.messages a
                     where a.root_id = m.root_id and cardinality(a.path) < cardinality(m.path)
                       and a.path = m.path[1:cardinality(a.path)] and a.content <> ''))
              from rustygpt.messages m where m.id = taken.message_id);
    end loop;
    return coalesce(array_to_json(claims), '[]'::json);
end
$$;

-- One call a flush for all turns of a replica. Arrays are parallel: a turn, the epoch it was claimed with,
-- the delta's number (from 0), its payload (null: only renew the lease) and its token ids as '1,2,3'. A delta
-- whose number is stored already is not stored again: a call whose answer was lost can be repeated. Returns,
-- for each turn that wants the replica's attention, [message_id, "lost" | "cancel"]. Turns are taken sorted by
-- conversation: all replicas lock channels in one order.
create or replace function rustygpt.worker_append(
    p_message_ids uuid[], p_epochs integer[], p_numbers integer[], p_payloads text[], p_token_ids text[],
    p_lease interval
) returns json language plpgsql volatile as $$
declare
    item record;
    answer json[] := '{}';
    held rustygpt.turns;
begin
    for item in
        select i.*, t.conversation_id
          from unnest(p_message_ids, p_epochs, p_numbers, p_payloads, p_token_ids)
               as i (message_id, epoch, number, payload, tokens)
          join rustygpt.turns t using (message_id)
         order by t.conversation_id, i.message_id
    loop
        perform 1 from rustygpt.channels where id = item.conversation_id for no key update;
        update rustygpt.turns set lease_expires_at = now() + p_lease
         where message_id = item.message_id and epoch = item.epoch and state = 'running'
        returning * into held;
        if not found then
            answer := answer || json_build_array(item.message_id, 'lost');
            continue;
        end if;
        if item.payload is not null and item.number = held.delta_count then
            update rustygpt.turns set delta_count = delta_count + 1 where message_id = item.message_id;
            perform rustygpt.append_event(item.conversation_id, 'message.delta', item.payload::json,
                item.message_id, string_to_array(item.tokens, ',')::integer[]);
        end if;
        if held.cancel_requested then
            answer := answer || json_build_array(item.message_id, 'cancel');
        end if;
    end loop;
    return array_to_json(answer);
end
$$;

-- The end of a turn, by the replica that holds it. False: the turn was taken over or has ended.
create or replace function rustygpt.worker_finish(
    p_message_id uuid, p_epoch integer, p_reason text, p_usage text, p_error text
) returns boolean language plpgsql volatile as $$
declare
    place uuid;
begin
    select conversation_id into place from rustygpt.turns where message_id = p_message_id;
    perform 1 from rustygpt.channels where id = place for no key update;
    perform 1 from rustygpt.turns where message_id = p_message_id and epoch = p_epoch and state = 'running' for update;
    if not found then
        return false;
    end if;
    return rustygpt.end_turn(p_message_id, p_reason, p_usage::json, p_error);
end
$$;
