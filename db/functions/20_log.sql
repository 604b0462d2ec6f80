-- The one way into the log. Takes the channel's row lock, so offsets are gapless and are committed in order.
-- A transaction that appends to several channels takes conversations first, then users by id: no deadlock.
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

-- A message as trees and events show it.
create or replace function rustygpt.message_json(p_message_id uuid) returns json
language sql stable as $$
    select json_build_object(
        'id', m.id, 'root_id', m.root_id, 'parent_id', m.parent_id, 'conversation_id', m.conversation_id,
        'author_id', m.author_id, 'author_name', coalesce(u.display_name, u.username),
        'role', m.role, 'state', m.state,
        'content', case when m.state = 'streaming' then rustygpt.streamed_text(m.id) else m.content end,
        'path', m.path, 'depth', cardinality(m.path), 'finish_reason', m.finish_reason, 'usage', m.usage,
        'created_at', rustygpt.instant(m.created_at))
      from rustygpt.messages m left join rustygpt.users u on u.id = m.author_id
     where m.id = p_message_id
$$;

create or replace function rustygpt.thread_json(p_root_id uuid) returns json
language sql stable as $$
    select json_build_object(
        'root_id', r.id, 'root_excerpt', left(btrim(r.content), 240), 'root_author', r.author_id,
        'created_at', rustygpt.instant(r.created_at),
        'last_activity_at', rustygpt.instant(max(m.created_at)),
        'message_count', count(*), 'participant_count', count(distinct m.author_id))
      from rustygpt.messages r join rustygpt.messages m on m.root_id = r.id
     where r.id = p_root_id group by r.id
$$;
