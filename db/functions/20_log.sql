-- The one way into the log (worker_append goes it with many events at once). Takes the channel's row lock, so offsets
-- are gapless and are committed in order. A transaction that appends to several channels takes conversations first, then users by id: no
-- deadlock.
create or replace function rustygpt.append_event(
    p_channel_id uuid, p_type text, p_payload json, p_message_id uuid default null, p_token_ids integer[] default null
) returns bigint language plpgsql volatile as $$
declare
    new_offset bigint;
begin
    update rustygpt.channels set last_offset = last_offset + 1 where id = p_channel_id
    returning last_offset into strict new_offset;
    insert into rustygpt.events (channel_id, "offset", type, payload, message_id, token_ids)
    values (p_channel_id, new_offset, p_type, json_build_object('type', p_type, 'payload', p_payload),
            p_message_id, p_token_ids);
    -- Same payload twice in a transaction is sent once: one NOTIFY a channel a commit.
    perform pg_notify('rustygpt_events', p_channel_id::text);
    return new_offset;
end
$$;

create or replace function rustygpt.open_channel(p_channel_id uuid, p_kind text) returns void
language sql volatile as $$
    insert into rustygpt.channels (id, kind) values (p_channel_id, p_kind)
$$;

-- Text so far of a message that is being written.
create or replace function rustygpt.streamed_text(p_message_id uuid) returns text
language sql stable as $$
    select coalesce(string_agg(payload #>> '{payload,choices,0,delta,content}', '' order by "offset"), '')
      from rustygpt.events where message_id = p_message_id and token_ids is not null
$$;

create or replace function rustygpt.streamed_token_ids(p_message_id uuid) returns integer[]
language sql stable as $$
    select coalesce(array_agg(token order by e."offset", t.place), '{}')
      from rustygpt.events e, unnest(e.token_ids) with ordinality as t (token, place)
     where e.message_id = p_message_id and e.token_ids is not null
$$;

-- A message as trees and events show it. Of a deleted one nothing is told but that it was there.
create or replace function rustygpt.message_json(p_message_id uuid) returns json
language sql stable as $$
    select json_build_object(
        'id', m.id, 'root_id', m.root_id, 'parent_id', m.parent_id, 'conversation_id', m.conversation_id,
        'author_id', m.author_id,
        'author_name', coalesce(m.author_label || ' (imported)', u.display_name, u.username),
        'role', m.role, 'state', m.state, 'title', m.title,
        'content', case when m.deleted_at is not null then ''
                        when m.state = 'streaming' then rustygpt.streamed_text(m.id) else m.content end,
        'path', m.path, 'depth', cardinality(m.path), 'seq', m.seq,
        'finish_reason', m.finish_reason, 'usage', m.usage, 'created_at', rustygpt.instant(m.created_at),
        'edited_at', rustygpt.instant(m.edited_at), 'deleted_at', rustygpt.instant(m.deleted_at))
      from rustygpt.messages m left join rustygpt.users u on u.id = m.author_id
     where m.id = p_message_id
$$;

create or replace function rustygpt.thread_json(p_root_id uuid) returns json
language sql stable as $$
    select json_build_object(
        'root_id', r.id, 'title', r.title, 'root_author', r.author_id,
        'root_excerpt', case when r.deleted_at is null then left(btrim(r.content), 240) else '' end,
        'created_at', rustygpt.instant(r.created_at), 'last_activity_at', rustygpt.instant(r.last_activity_at),
        'message_count', counted.messages, 'participant_count', counted.authors)
      from rustygpt.messages r
      cross join lateral (
          select count(*) as messages, count(distinct author_id) as authors
            from rustygpt.messages where root_id = r.id) counted
     where r.id = p_root_id
$$;

-- Something happened in a thread: its place in the list, and an event that says so.
create or replace function rustygpt.touch_thread(p_conversation_id uuid, p_root_id uuid) returns void
language plpgsql volatile as $$
begin
    update rustygpt.messages set last_activity_at = now() where id = p_root_id;
    perform rustygpt.append_event(p_conversation_id, 'thread.activity', json_build_object(
        'conversation_id', p_conversation_id, 'root_id', p_root_id, 'last_activity_at', rustygpt.instant(now())));
end
$$;

-- Readers are told what a message is now.
create or replace function rustygpt.tell_updated(p_message_id uuid) returns void
language sql volatile as $$
    select rustygpt.append_event(conversation_id, 'message.updated',
               json_build_object('message', rustygpt.message_json(id)), id)
      from rustygpt.messages where id = p_message_id
$$;
