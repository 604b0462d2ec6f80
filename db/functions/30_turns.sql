-- Everything that writes an assistant message.

-- Makes the assistant's message under p_parent_id and the turn that will write it; tells readers of both. p_request has
-- how it is to be made, where that is not as the conversation says.
create or replace function rustygpt.enqueue_turn(
    p_parent_id uuid, p_model text, p_deadline interval, p_request json default null
) returns uuid language plpgsql volatile as $$
declare
    parent rustygpt.messages := rustygpt.visible_message(p_parent_id);
    answer uuid := rustygpt.uuid_v7();
begin
    insert into rustygpt.messages (id, conversation_id, root_id, parent_id, role, state, path, seq)
    values (answer, parent.conversation_id, parent.root_id, parent.id, 'assistant', 'queued',
            rustygpt.next_path(parent.id), rustygpt.next_seq(parent.conversation_id));
    insert into rustygpt.turns (message_id, conversation_id, model, deadline_at, request)
    values (answer, parent.conversation_id, p_model, now() + p_deadline, p_request);
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
       set state = 'done', owner = null, lease_expires_at = null, finished_at = now(), error = p_error
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
    update rustygpt.conversations set updated_at = now() where id = written.conversation_id;
    perform rustygpt.touch_thread(written.conversation_id, written.root_id);
    perform rustygpt.tell_unread(written.conversation_id, written.root_id);
    return true;
end
$$;

-- Takes the lease of up to p_limit turns that nobody works on: new ones, and those whose lease ran out.
-- p_only names one turn that the caller was handed; without it, turns younger than p_patience are left to
-- the replica that the Gateway chose for them. After five attempts in which its text did not grow the turn ends
-- with an error. A turn that is ended here is the last of the call: ending it locks inboxes, and conversations are
-- locked before those.
-- A replica without room calls with p_limit 0, to say that its model is there.
create or replace function rustygpt.worker_claim(
    p_model text, p_owner text, p_lease interval, p_limit integer, p_only uuid, p_patience interval
) returns json language plpgsql volatile as $$
declare
    open_turn record;
    taken rustygpt.turns;
    claims json[] := '{}';
begin
    insert into rustygpt.live_models as live (model) values (p_model)
    on conflict (model) do update set seen_at = now() where live.seen_at < now() - interval '5 seconds';
    for open_turn in
        select oldest.* from (
            select message_id, conversation_id, epoch, attempts, deadline_at from rustygpt.turns
             where model = p_model and (p_only is null or message_id = p_only)
               and ((state = 'queued' and (p_only is not null or created_at < now() - p_patience))
                    or (state = 'running' and lease_expires_at < now()))
             order by created_at limit p_limit) oldest
         -- The order in which worker_append locks channels: no deadlock between the two.
         order by conversation_id, message_id
    loop
        if open_turn.attempts >= 5 then
            perform rustygpt.end_turn(open_turn.message_id, 'error', null,
                'The model failed on this message several times. Ask again, or choose another model.');
            exit;
        end if;
        perform 1 from rustygpt.channels where id = open_turn.conversation_id for no key update;
        update rustygpt.turns
           set state = 'running', owner = p_owner, epoch = epoch + 1, attempts = attempts + 1,
               lease_expires_at = now() + p_lease
         where message_id = open_turn.message_id and epoch = open_turn.epoch and state <> 'done'
           and (state = 'queued' or lease_expires_at < now())
        returning * into taken;
        if not found then
            continue;   -- another replica was faster
        end if;
        if taken.cancel_requested then
            perform rustygpt.end_turn(taken.message_id, 'cancelled');
            exit;
        end if;
        if taken.deadline_at < now() then
            perform rustygpt.end_turn(taken.message_id, 'timeout', null, 'The answer took longer than allowed.');
            exit;
        end if;
        update rustygpt.messages set state = 'streaming' where id = taken.message_id;
        claims := claims || rustygpt.claim_json(taken);
    end loop;
    return coalesce(array_to_json(claims), '[]'::json);
end
$$;

-- Who holds turns of a model now.
create or replace function rustygpt.worker_owners(p_model text) returns json
language sql stable as $$
    select coalesce(json_agg(distinct owner), '[]'::json) from rustygpt.turns
     where model = p_model and state = 'running' and lease_expires_at > now()
$$;

-- Ends the leases of replicas that are known to be dead. A turn that somebody changes just now is left for later: no
-- waiting, hence no deadlock.
create or replace function rustygpt.worker_release(p_model text, p_owners text[]) returns void
language sql volatile as $$
    update rustygpt.turns set lease_expires_at = now() - interval '1 microsecond'
     where message_id in (
        select message_id from rustygpt.turns
         where model = p_model and state = 'running' and owner = any (p_owners) and lease_expires_at > now()
           for no key update skip locked)
$$;

-- What a replica needs in order to write the answer, or to go on with it. A stored answer (51_responses.sql) has no
-- parent, no history and no title: what is asked stands in its request.
create or replace function rustygpt.claim_json(p_turn rustygpt.turns) returns json
language sql stable as $$
    select json_build_object(
        'message_id', m.id, 'conversation_id', m.conversation_id, 'root_id', m.root_id,
        'parent_id', m.parent_id, 'depth', cardinality(m.path), 'epoch', p_turn.epoch,
        'delta_count', p_turn.delta_count, 'seconds_left', extract(epoch from p_turn.deadline_at - now()),
        'system_prompt', c.system_prompt, 'temperature', c.temperature,
        'needs_title', m.parent_id is not null and (select title is null from rustygpt.messages where id = m.root_id),
        'request', p_turn.request,
        'token_ids', rustygpt.streamed_token_ids(m.id),
        'history', rustygpt.history_json(m.parent_id))
      from rustygpt.messages m join rustygpt.conversations c on c.id = m.conversation_id
     where m.id = p_turn.message_id
$$;

-- A message and those above it, root first, as the model is to read them: without deleted and empty ones.
-- `name` is the author's in a conversation of several people, else null.
create or replace function rustygpt.history_json(p_message_id uuid) returns json
language sql stable as $$
    -- In order of their distance: to compare the paths of a thread that is thousands of messages deep takes seconds.
    with recursive ancestors as (
        select m.*, 0 as distance from rustygpt.messages m where id = p_message_id
        union all
        select m.*, a.distance + 1 from ancestors a join rustygpt.messages m on m.id = a.parent_id),
    said as (
        select a.distance, a.role, a.content, c.is_group,
               coalesce(a.author_label, u.display_name, u.username) as author_name
          from ancestors a join rustygpt.conversations c on c.id = a.conversation_id
          left join rustygpt.users u on u.id = a.author_id
         where a.deleted_at is null and a.content <> '')
    select json_agg(json_build_object('role', role, 'content', content,
                        'name', case when is_group or (select count(distinct author_name) from said) > 1
                                     then author_name end) order by distance desc)
      from said
$$;

-- The model's title for a thread; one that a person gave is kept.
create or replace function rustygpt.worker_set_title(p_root_id uuid, p_title text) returns boolean
language plpgsql volatile as $$
declare
    place uuid;
begin
    select conversation_id into place from rustygpt.messages where id = p_root_id;
    perform rustygpt.lock_channel(place);
    if exists (select 1 from rustygpt.messages where id = p_root_id and title is null and deleted_at is null) then
        perform rustygpt.set_title(p_root_id, p_title);
        return true;
    end if;
    return false;
end
$$;

-- One call a flush for all turns of a replica. Arrays are parallel: a turn, the epoch it was claimed with,
-- the delta's number (from 0), its payload (null: only renew the lease) and its token ids as '1,2,3'. A delta
-- whose number is stored already is not stored again: a call whose answer was lost can be repeated. Returns,
-- for each turn that wants the replica's attention, [message_id, "lost" | "cancel"].
-- One statement for all turns costs half of one for each: 0.4 ms of processor time for 8 turns, 0.6 for 16.
create or replace function rustygpt.worker_append(
    p_message_ids uuid[], p_epochs integer[], p_numbers integer[], p_payloads text[], p_token_ids text[],
    p_lease interval
) returns json language plpgsql volatile as $$
declare
    attention json;
begin
    -- All replicas lock channels in one order. Who changes a turn holds its channel's lock: what is read from here on
    -- stays true until it is written.
    perform 1 from rustygpt.channels
      where id = any (array(select conversation_id from rustygpt.turns where message_id = any (p_message_ids)))
      order by id for no key update;
    with held as materialized (
        select t.message_id, t.conversation_id, t.cancel_requested, i.tokens,
               case when i.number = t.delta_count then i.payload end as payload
          from unnest(p_message_ids, p_epochs, p_numbers, p_payloads, p_token_ids)
               as i (message_id, epoch, number, payload, tokens)
          join rustygpt.turns t on t.message_id = i.message_id and t.epoch = i.epoch and t.state = 'running'),
    renewed as (
        update rustygpt.turns t
           set lease_expires_at = now() + p_lease, delta_count = delta_count + (held.payload is not null)::integer,
               attempts = case when held.payload is null then attempts else 0 end
          from held where t.message_id = held.message_id),
    fresh as (
        select *, row_number() over (partition by conversation_id order by message_id) as place
          from held where payload is not null),
    -- As append_event does for one event.
    advanced as (
        update rustygpt.channels c set last_offset = last_offset + added.deltas
          from (select conversation_id, count(*) as deltas from fresh group by conversation_id) added
         where c.id = added.conversation_id
        returning c.id, c.last_offset - added.deltas as before, pg_notify('rustygpt_events', c.id::text)),
    stored as (
        insert into rustygpt.events (channel_id, "offset", type, payload, message_id, token_ids)
        select id, before + place, 'message.delta',
               json_build_object('type', 'message.delta', 'payload', payload::json), message_id,
               string_to_array(tokens, ',')::integer[]
          from fresh join advanced on id = conversation_id)
    select coalesce(json_agg(json_build_array(
               message_id, case when held.message_id is null then 'lost' else 'cancel' end)), '[]'::json)
      into attention
      from unnest(p_message_ids) given (message_id) left join held using (message_id)
     where held.message_id is null or held.cancel_requested;
    return attention;
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
