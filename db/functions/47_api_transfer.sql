-- A conversation as a file, and a file as a conversation.

-- Row 0 is the head, the others are the messages, depth first, with their depth. Read in one transaction, of one
-- snapshot. Of a deleted message its place is kept; an answer that is being written is left out: nothing hangs on it.
create or replace function rustygpt.api_export(p_session bytea, p_conversation_id uuid)
returns table (depth integer, part text) language plpgsql volatile as $$
begin
    perform rustygpt.sign_in(p_session);
    perform rustygpt.require_role(p_conversation_id, 'viewer');
    return query select 0, rustygpt.export_head(p_conversation_id)::text;
    return query select e.depth, e.part from rustygpt.export_messages(p_conversation_id) e;
end
$$;

create or replace function rustygpt.export_head(p_conversation_id uuid) returns json
language sql stable as $$
    select json_build_object(
        'format', 'rustygpt.conversation', 'version', 1, 'exported_at', rustygpt.instant(now()),
        'conversation', json_build_object(
            'title', c.title, 'is_group', c.is_group, 'model', c.model, 'system_prompt', c.system_prompt,
            'temperature', c.temperature, 'reply_mode', c.reply_mode, 'created_at', rustygpt.instant(c.created_at)),
        'participants', (
            select coalesce(json_agg(json_build_object('name', coalesce(u.display_name, u.username), 'role', p.role)
                                     order by p.joined_at, p.user_id), '[]'::json)
              from rustygpt.participants p join rustygpt.users u on u.id = p.user_id
             where p.conversation_id = c.id and p.left_at is null))
      from rustygpt.conversations c where c.id = p_conversation_id
$$;

create or replace function rustygpt.export_messages(p_conversation_id uuid) returns table (depth integer, part text)
language sql stable as $$
    select cardinality(m.path), json_build_object(
        'id', m.id, 'parent_id', m.parent_id, 'role', m.role,
        'author', coalesce(m.author_label, u.display_name, u.username), 'title', m.title,
        'content', case when m.deleted_at is null then m.content else '' end,
        'created_at', rustygpt.instant(m.created_at), 'edited_at', rustygpt.instant(m.edited_at),
        'deleted', m.deleted_at is not null, 'finish_reason', m.finish_reason)::text
      from rustygpt.messages m left join rustygpt.users u on u.id = m.author_id
     where m.conversation_id = p_conversation_id and m.state = 'done' order by m.path
$$;

-- A new conversation of the actor's. p_conversation: title, is_group and settings; p_messages: an array, depth first,
-- of {depth, role, author, title, content, created_at, edited_at, deleted, finish_reason}.
create or replace function rustygpt.api_import(p_session bytea, p_once text[], p_conversation jsonb, p_messages json)
returns json language plpgsql volatile as $$
declare
    actor uuid := rustygpt.sign_in(p_session);
    replay json := rustygpt.recall(actor, p_once);
    made json;
    place uuid;
begin
    if replay is not null then
        return replay;
    end if;
    made := rustygpt.api_create_conversation(p_session, null, p_conversation ->> 'title',
        coalesce((p_conversation ->> 'is_group')::boolean, false), p_conversation);
    place := (made ->> 'conversation_id')::uuid;
    return rustygpt.remember(actor, p_once, json_build_object(
        'conversation_id', place, 'cursor', made ->> 'cursor',
        'message_count', rustygpt.import_messages(place, actor, p_messages)));
end
$$;

-- How many children each message has, in order. Refuses what is no tree in depth-first order.
create or replace function rustygpt.children_of(p_depths integer[]) returns integer[]
language plpgsql immutable as $$
declare
    children integer[] := array_fill(0, array[cardinality(p_depths)]);
    above integer[] := '{}';     -- at each depth, the place of the latest message
    depth integer;
    open_depth integer := 0;
begin
    for place in 1 .. cardinality(p_depths) loop
        depth := p_depths[place];
        if depth is null or depth not between 1 and open_depth + 1 then
            perform rustygpt.fail(422, 'RGP.VALIDATION',
                format('Message %s: it answers no message before it.', place));
        end if;
        if depth > 1 then
            children[above[depth - 1]] := children[above[depth - 1]] + 1;
        end if;
        above[depth] := place;
        open_depth := depth;
    end loop;
    return children;
end
$$;

-- Fills an empty conversation; the number of its messages. Messages of people become the importer's, whatever name
-- stands in the file. The importer has read them all.
create or replace function rustygpt.import_messages(p_conversation_id uuid, p_importer_id uuid, p_messages json)
returns integer language plpgsql volatile as $$
declare
    depths integer[] := array(
        select (value ->> 'depth')::integer from json_array_elements(p_messages) with ordinality order by ordinality);
    children integer[] := rustygpt.children_of(depths);
    item record;
    path integer[] := '{}';
    line uuid[] := '{}';         -- ids from the root down
begin
    for item in
        select m.*, e.ordinality::integer as place, depths[e.ordinality] as depth,
               row_number() over (order by m.created_at, e.ordinality) as seq
          from json_array_elements(p_messages) with ordinality e,
               json_to_record(e.value) as m (
                   role rustygpt.message_role, author text, title text, content text, created_at timestamptz,
                   edited_at timestamptz, deleted boolean, finish_reason text)
         order by e.ordinality
    loop
        path := path[1 : item.depth - 1] || coalesce(path[item.depth], 0) + 1;
        line[item.depth] := rustygpt.uuid_v7();
        insert into rustygpt.messages (
            id, conversation_id, root_id, parent_id, author_id, author_label, role, state, title, content, path,
            child_count, seq, finish_reason, created_at, edited_at, deleted_at, deleted_by)
        values (
            line[item.depth], p_conversation_id, line[1],
            case when item.depth > 1 then line[item.depth - 1] end,
            case when item.role = 'user' then p_importer_id end,
            case when item.role = 'user' then item.author end,
            item.role, 'done', case when item.depth = 1 then item.title end, item.content, path,
            children[item.place], item.seq, item.finish_reason, item.created_at, item.edited_at,
            case when item.deleted then now() end, case when item.deleted then p_importer_id end);
    end loop;
    update rustygpt.messages r set last_activity_at = (
        select max(m.created_at) from rustygpt.messages m where m.root_id = r.id)
     where r.conversation_id = p_conversation_id and r.parent_id is null;
    insert into rustygpt.read_marks (root_id, user_id, conversation_id, last_read_seq)
    select root_id, p_importer_id, p_conversation_id, max(seq) from rustygpt.messages
     where conversation_id = p_conversation_id group by root_id;
    update rustygpt.conversations
       set root_count = coalesce(path[1], 0), message_count = cardinality(depths), imported_at = now()
     where id = p_conversation_id;
    return cardinality(depths);
exception when program_limit_exceeded then
    perform rustygpt.fail(422, 'RGP.VALIDATION', 'A thread has more branches within branches than can be kept.');
    return null;
end
$$;
