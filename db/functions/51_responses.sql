-- Stored answers of /v1: made, read, listed, changed, stopped and deleted by their owner. p_session is the hash of a
-- session's token or of an API key.

-- Queues an answer to p_request (an Ask). Again with the same Idempotency-Key: the answer that was made then, as it is
-- now. {"is_new", "answer"}.
create or replace function rustygpt.api_create_response(
    p_session bytea, p_idle interval, p_once text[], p_kind text, p_model text, p_request json, p_shown json,
    p_background boolean, p_deadline interval
) returns json language plpgsql volatile as $$
declare
    actor uuid := rustygpt.sign_in(p_session);
    replay json := rustygpt.recall(actor, p_once);
    new_id uuid := rustygpt.uuid_v7();
begin
    perform rustygpt.touch_session(p_session, p_idle);
    if replay is not null then
        return rustygpt.begun_json((replay ->> 'message_id')::uuid, false);
    end if;
    perform rustygpt.queue_response(new_id, actor, p_kind, p_model, p_request, p_shown, p_background, p_deadline);
    perform rustygpt.remember(actor, p_once, json_build_object('message_id', new_id));
    return rustygpt.begun_json(new_id, true);
end
$$;

-- The answer that a request with this Idempotency-Key was given before, as it is now. Null where there is none, or it is
-- being made at this moment.
create or replace function rustygpt.api_repeated_response(p_session bytea, p_idle interval, p_once text[]) returns json
language plpgsql volatile as $$
declare
    actor uuid := rustygpt.sign_in(p_session);
    before json := rustygpt.look_up(actor, p_once);
begin
    perform rustygpt.touch_session(p_session, p_idle);
    return case when before is not null then rustygpt.own_response_json((before ->> 'message_id')::uuid) end;
end
$$;

create or replace function rustygpt.begun_json(p_message_id uuid, p_is_new boolean) returns json
language sql stable as $$
    select json_build_object('is_new', p_is_new, 'answer', rustygpt.own_response_json(p_message_id))
$$;

-- The message, alone in a conversation that nobody takes part in, and its turn. Nobody reads yet: no events.
create or replace function rustygpt.queue_response(
    p_message_id uuid, p_user_id uuid, p_kind text, p_model text, p_request json, p_shown json, p_background boolean,
    p_deadline interval
) returns void language plpgsql volatile as $$
declare
    place uuid := rustygpt.uuid_v7();
begin
    insert into rustygpt.conversations (id, title, created_by) values (place, 'A stored answer', p_user_id);
    perform rustygpt.open_channel(place, 'answer');
    insert into rustygpt.messages (id, conversation_id, root_id, role, state, path, seq)
    values (p_message_id, place, p_message_id, 'assistant', 'queued', array[1], rustygpt.next_seq(place));
    insert into rustygpt.turns (message_id, conversation_id, model, deadline_at, request)
    values (p_message_id, place, p_model, now() + p_deadline, p_request);
    perform rustygpt.keep_response(p_message_id, p_user_id, p_kind, p_model, p_shown, p_background);
end
$$;

create or replace function rustygpt.keep_response(
    p_message_id uuid, p_user_id uuid, p_kind text, p_model text, p_shown json, p_background boolean
) returns void language sql volatile as $$
    insert into rustygpt.responses (message_id, user_id, kind, model, shown, background)
    values (p_message_id, p_user_id, p_kind, p_model, p_shown, p_background)
$$;

-- The newest message of a chat as a reply in a thread, and the answer to it by the given model whatever the reply mode
-- says. p_request has how the answer is to be made; what the model reads is the thread. Kept as a stored chat of the
-- one who asked.
create or replace function rustygpt.api_ask_in_thread(
    p_session bytea, p_idle interval, p_once text[], p_conversation_id uuid, p_parent_id uuid, p_content text,
    p_model text, p_request json, p_shown json, p_deadline interval
) returns json language plpgsql volatile as $$
declare
    actor uuid := rustygpt.sign_in(p_session);
    replay json := rustygpt.recall(actor, p_once);
    parent rustygpt.messages;
    new_id uuid := rustygpt.uuid_v7();
    answer uuid;
begin
    perform rustygpt.touch_session(p_session, p_idle);
    if replay is not null then
        return rustygpt.begun_json((replay ->> 'message_id')::uuid, false);
    end if;
    perform rustygpt.require_role(p_conversation_id, 'member');
    if not exists (select 1 from rustygpt.messages where id = p_parent_id and conversation_id = p_conversation_id) then
        perform rustygpt.fail(404, 'RGP.NOT_FOUND', 'There is no such message in this conversation.');
    end if;
    parent := rustygpt.message_to_reply_to(p_parent_id);
    insert into rustygpt.messages (id, conversation_id, root_id, parent_id, author_id, role, state, content, path, seq)
    values (new_id, parent.conversation_id, parent.root_id, parent.id, actor, 'user', 'done', p_content,
            rustygpt.next_path(parent.id), rustygpt.next_seq(parent.conversation_id));
    answer := rustygpt.publish_post(new_id, array[p_model], p_deadline, p_request) ->> 'assistant_message_id';
    perform rustygpt.keep_response(answer, actor, 'chat', p_model, p_shown, false);
    perform rustygpt.remember(actor, p_once, json_build_object('message_id', answer));
    return rustygpt.begun_json(answer, true);
end
$$;

-- The answer with this id, if it is the actor's own, of the given kind (null: of any), and may be seen: in a thread a
-- message can be deleted, and its reader removed. 404 otherwise.
create or replace function rustygpt.own_response(p_message_id uuid, p_kind text default null)
returns rustygpt.responses language plpgsql stable as $$
declare
    held rustygpt.responses;
begin
    select r.* into held from rustygpt.responses r
     where r.message_id = p_message_id and r.user_id = rustygpt.actor_id() and r.kind = coalesce(p_kind, r.kind)
       and rustygpt.is_response_shown(r.message_id, r.user_id);
    if not found then
        perform rustygpt.fail(404, 'RGP.NOT_FOUND', 'There is no such answer. It may have been deleted.');
    end if;
    return held;
end
$$;

create or replace function rustygpt.is_response_shown(p_message_id uuid, p_user_id uuid) returns boolean
language sql stable as $$
    select m.deleted_at is null and c.deleted_at is null
           -- In a thread it answers a message; one that answers none is alone in its conversation.
           and (m.parent_id is null or exists (
                select 1 from rustygpt.participants
                 where conversation_id = c.id and user_id = p_user_id and left_at is null))
      from rustygpt.messages m join rustygpt.conversations c on c.id = m.conversation_id
     where m.id = p_message_id
$$;

create or replace function rustygpt.own_response_json(p_message_id uuid, p_kind text default null) returns json
language sql stable as $$ select rustygpt.response_json((rustygpt.own_response(p_message_id, p_kind)).message_id) $$;

-- One snapshot: text and end belong together. `tokens` are those in the log; `events_kept`, whether all its deltas are
-- there.
create or replace function rustygpt.response_json(p_message_id uuid) returns json
language sql stable as $$
    select json_build_object(
        'message_id', r.message_id, 'conversation_id', m.conversation_id, 'kind', r.kind,
        'thread_id', case when m.parent_id is not null then m.root_id end,
        'model', r.model, 'request', t.request, 'shown', r.shown, 'background', r.background,
        'created_at', floor(extract(epoch from r.created_at))::bigint,
        'text', m.content, 'tokens', logged.tokens, 'events_kept', logged.deltas = t.delta_count,
        'begun', t.delta_count > 0,
        'ended', rustygpt.turn_end_json(t, m))
      from rustygpt.responses r
      join rustygpt.messages m on m.id = r.message_id
      join rustygpt.turns t on t.message_id = r.message_id
      cross join lateral (
          select count(*) as deltas, coalesce(sum(cardinality(token_ids)), 0) as tokens
            from rustygpt.events where message_id = r.message_id and token_ids is not null) logged
     where r.message_id = p_message_id
$$;

-- Null while it is being written.
create or replace function rustygpt.turn_end_json(p_turn rustygpt.turns, p_message rustygpt.messages) returns json
language sql stable as $$
    select case when p_turn.state = 'done' then json_build_object(
        'reason', p_message.finish_reason, 'usage', p_message.usage, 'error', p_turn.error,
        'deltas', p_turn.delta_count) end
$$;

create or replace function rustygpt.api_read_response(p_session bytea, p_idle interval, p_kind text, p_message_id uuid)
returns json language plpgsql volatile as $$
begin
    perform rustygpt.sign_in(p_session);
    perform rustygpt.touch_session(p_session, p_idle);
    return (select rustygpt.own_response_json(p_message_id, p_kind));
end
$$;

-- The actor's answers that came to their end, in order of time: those after p_after, of p_model, whose metadata have all of
-- p_metadata (each null: of any).
create or replace function rustygpt.api_list_responses(
    p_session bytea, p_kind text, p_after uuid, p_is_ascending boolean, p_limit integer, p_model text, p_metadata jsonb
) returns json language plpgsql volatile as $$
declare
    actor uuid := rustygpt.sign_in(p_session);
begin
    return rustygpt.responses_page(actor, p_kind, p_after, p_is_ascending, p_limit, p_model, p_metadata);
end
$$;

create or replace function rustygpt.responses_page(
    p_user_id uuid, p_kind text, p_after uuid, p_is_ascending boolean, p_limit integer, p_model text, p_metadata jsonb
) returns json language sql stable as $$
    with own as not materialized (
        select r.message_id from rustygpt.responses r
         where r.user_id = p_user_id and r.kind = p_kind and r.model = coalesce(p_model, r.model)
           and (p_metadata is null or coalesce((r.shown -> 'metadata')::jsonb, '{}') @> p_metadata)
           and (select finish_reason from rustygpt.messages where id = r.message_id) in ('stop', 'length')
           and rustygpt.is_response_shown(r.message_id, r.user_id)),
    -- Ids that are before all and after all where there is no mark: a condition that the index takes either way.
    ascending as (
        select message_id, row_number() over (order by message_id) as place from own
         where p_is_ascending and message_id > coalesce(p_after, '00000000-0000-0000-0000-000000000000')
         order by message_id limit p_limit + 1),
    descending as (
        select message_id, row_number() over (order by message_id desc) as place from own
         where not p_is_ascending and message_id < coalesce(p_after, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
         order by message_id desc limit p_limit + 1),
    page as (select * from ascending union all select * from descending)
    select json_build_object(
        'answers', coalesce((select json_agg(rustygpt.response_json(message_id) order by place)
                               from page where place <= p_limit), '[]'::json),
        'has_more', (select count(*) from page) > p_limit)
$$;

-- Takes the place of the metadata that are echoed.
create or replace function rustygpt.api_change_response(
    p_session bytea, p_idle interval, p_kind text, p_message_id uuid, p_metadata jsonb
) returns json language plpgsql volatile as $$
begin
    perform rustygpt.sign_in(p_session);
    perform rustygpt.touch_session(p_session, p_idle);
    perform rustygpt.set_response_metadata((rustygpt.own_response(p_message_id, p_kind)).message_id, p_metadata);
    return (select rustygpt.own_response_json(p_message_id, p_kind));
end
$$;

create or replace function rustygpt.set_response_metadata(p_message_id uuid, p_metadata jsonb) returns void
language sql volatile as $$
    update rustygpt.responses set shown = (shown::jsonb || jsonb_build_object('metadata', p_metadata))::json
     where message_id = p_message_id
$$;

-- As it stands afterwards: an answer that a replica writes ends when that one has heard of it.
create or replace function rustygpt.api_cancel_response(
    p_session bytea, p_idle interval, p_kind text, p_message_id uuid
) returns json language plpgsql volatile as $$
begin
    perform rustygpt.sign_in(p_session);
    perform rustygpt.touch_session(p_session, p_idle);
    perform rustygpt.cancel_turn((rustygpt.own_response(p_message_id, p_kind)).message_id);
    return (select rustygpt.own_response_json(p_message_id, p_kind));
end
$$;

-- At once and for good, even while it is being written: its writer finds its lease lost. A message in a thread stays
-- there; it is only no stored answer any more.
create or replace function rustygpt.api_delete_response(
    p_session bytea, p_idle interval, p_kind text, p_message_id uuid
) returns void language plpgsql volatile as $$
begin
    perform rustygpt.sign_in(p_session);
    perform rustygpt.touch_session(p_session, p_idle);
    perform rustygpt.remove_response((rustygpt.own_response(p_message_id, p_kind)).message_id);
end
$$;

create or replace function rustygpt.remove_response(p_message_id uuid) returns void
language plpgsql volatile as $$
declare
    place uuid;
begin
    select conversation_id into place from rustygpt.messages where id = p_message_id and parent_id is null;
    if not found then
        delete from rustygpt.responses where message_id = p_message_id;
        return;
    end if;
    perform rustygpt.lock_channel(place);
    delete from rustygpt.events where channel_id = place;
    delete from rustygpt.messages where id = p_message_id;
    delete from rustygpt.conversations where id = place;
    delete from rustygpt.channels where id = place;
    perform pg_notify('rustygpt_events', place::text);   -- readers see that it is gone
end
$$;

-- Deletes up to p_limit ended answers older than p_keep. Returns how many went.
create or replace function rustygpt.worker_purge_responses(p_keep interval, p_limit integer) returns integer
language plpgsql volatile as $$
declare
    old uuid;
    gone integer := 0;
begin
    for old in
        select r.message_id from rustygpt.responses r join rustygpt.turns t using (message_id)
         where r.created_at < now() - p_keep and t.state = 'done'
         order by r.created_at limit p_limit for update of r skip locked
    loop
        perform rustygpt.remove_response(old);
        gone := gone + 1;
    end loop;
    return gone;
end
$$;

-- What follows each reader's place in an answer: its deltas after an offset, at most p_limit of each and no more once
-- they have p_bytes together, then one row whose `offset` is null. That row has how the answer ended, once its last delta
-- was returned. No row at all: the answer is gone, or whose credential this is may not read it any more.
-- By the message, not by its channel, where others may speak, too. Stable: all of it is of one instant.
create or replace function rustygpt.stream_read_answers(
    p_sessions bytea[], p_message_ids uuid[], p_after bigint[], p_limit integer, p_bytes integer
) returns table (place integer, "offset" bigint, payload text, token_ids integer[], ended text)
language plpgsql stable as $$
declare
    reader record;
    delta record;
    deltas integer;
    size bigint;
begin
    for reader in
        select w.ordinality, w.message_id, w.after, t as turn, m as message
          from unnest(p_sessions, p_message_ids, p_after) with ordinality as w (session, message_id, after, ordinality)
          join rustygpt.responses r on r.message_id = w.message_id
          join rustygpt.turns t on t.message_id = w.message_id
          join rustygpt.messages m on m.id = w.message_id
         where r.user_id = rustygpt.live_user_id(w.session) and rustygpt.is_response_shown(m.id, r.user_id)
    loop
        place := reader.ordinality;
        deltas := 0;
        size := 0;
        ended := null;
        -- A loop, since it stops reading long events where a query would read them all to know their sizes.
        for delta in
            select e."offset", e.payload::text as payload, e.token_ids from rustygpt.events e
             where e.message_id = reader.message_id and e.token_ids is not null and e."offset" > reader.after
             order by e."offset" limit p_limit
        loop
            "offset" := delta."offset";
            payload := delta.payload;
            token_ids := delta.token_ids;
            return next;
            deltas := deltas + 1;
            size := size + octet_length(delta.payload);
            exit when size >= p_bytes;
        end loop;
        "offset" := null;
        payload := null;
        token_ids := null;
        if deltas < p_limit and size < p_bytes then
            ended := rustygpt.turn_end_json(reader.turn, reader.message)::text;
        end if;
        return next;
    end loop;
end
$$;

-- Whose session or key this is; null where it is not live.
create or replace function rustygpt.live_user_id(p_session bytea) returns uuid
language plpgsql stable as $$
begin
    return rustygpt.session_user_id(p_session);
exception when sqlstate 'RG401' or sqlstate 'RG423' then
    return null;
end
$$;
