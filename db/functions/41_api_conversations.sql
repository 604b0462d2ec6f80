-- p_settings: any of model, system_prompt, temperature, reply_mode.
create or replace function rustygpt.api_create_conversation(
    p_session bytea, p_once text[], p_title text, p_is_group boolean, p_settings jsonb
) returns json language plpgsql volatile as $$
declare
    actor uuid := rustygpt.sign_in(p_session);
    replay json := rustygpt.recall(actor, p_once);
    new_id uuid := rustygpt.uuid_v7();
begin
    if replay is not null then
        return replay;
    end if;
    insert into rustygpt.conversations (id, title, is_group, created_by, model, system_prompt, temperature, reply_mode)
    values (new_id, p_title, p_is_group, actor, p_settings ->> 'model', p_settings ->> 'system_prompt',
            (p_settings ->> 'temperature')::real,
            coalesce(p_settings ->> 'reply_mode', 'always')::rustygpt.reply_mode);
    perform rustygpt.add_first_owner(new_id, actor);
    return rustygpt.remember(actor, p_once, json_build_object(
        'conversation_id', new_id, 'cursor', rustygpt.channel_cursor(new_id)));
end
$$;

create or replace function rustygpt.add_first_owner(p_conversation_id uuid, p_user_id uuid) returns void
language plpgsql volatile as $$
begin
    perform rustygpt.open_channel(p_conversation_id, 'conversation');
    insert into rustygpt.participants (conversation_id, user_id, role) values (p_conversation_id, p_user_id, 'owner');
    perform rustygpt.tell_membership(p_conversation_id, p_user_id, 'owner', 'added');
end
$$;

-- What a conversation is to everybody in it, as events tell it.
create or replace function rustygpt.conversation_json(p_conversation_id uuid) returns json
language sql stable as $$
    select json_build_object(
        'id', id, 'title', title, 'is_group', is_group, 'archived_at', rustygpt.instant(archived_at),
        'deleted_at', rustygpt.instant(deleted_at), 'model', model, 'system_prompt', system_prompt,
        'temperature', temperature, 'reply_mode', reply_mode, 'updated_at', rustygpt.instant(updated_at))
      from rustygpt.conversations where id = p_conversation_id
$$;

-- The same with what it is to one participant.
create or replace function rustygpt.own_conversation_json(p_conversation_id uuid, p_user_id uuid) returns jsonb
language sql stable as $$
    select rustygpt.conversation_json(c.id)::jsonb - 'deleted_at' || jsonb_build_object(
               'role', p.role, 'unread', rustygpt.unread_total(c.id, p_user_id),
               'imported_at', rustygpt.instant(c.imported_at), 'created_at', rustygpt.instant(c.created_at))
      from rustygpt.conversations c join rustygpt.participants p on p.conversation_id = c.id and p.user_id = p_user_id
     where c.id = p_conversation_id
$$;

create or replace function rustygpt.participants_json(p_conversation_id uuid) returns json
language sql stable as $$
    select json_agg(rustygpt.participant_json(conversation_id, user_id) order by joined_at, user_id)
      from rustygpt.participants where conversation_id = p_conversation_id and left_at is null
$$;

create or replace function rustygpt.participant_json(p_conversation_id uuid, p_user_id uuid) returns json
language sql stable as $$
    select json_build_object('user_id', u.id, 'username', u.username, 'display_name', u.display_name,
                             'role', p.role, 'joined_at', rustygpt.instant(p.joined_at))
      from rustygpt.participants p join rustygpt.users u on u.id = p.user_id
     where p.conversation_id = p_conversation_id and p.user_id = p_user_id
$$;

-- Newest activity first. p_query: part of the title. p_archived null: both kinds. p_before_*: the last page's last.
create or replace function rustygpt.api_list_conversations(
    p_session bytea, p_query text, p_archived boolean, p_before_at timestamptz, p_before_id uuid, p_limit integer
) returns json language plpgsql volatile as $$
declare
    actor uuid := rustygpt.sign_in(p_session);
begin
    return rustygpt.conversations_page(actor, p_query, p_archived, p_before_at, p_before_id, p_limit);
end
$$;

-- Stable: the list and the inbox's cursor are of one snapshot. The system's, since a policy would be asked twice for
-- each conversation, of which there may be thousands.
create or replace function rustygpt.conversations_page(
    p_user_id uuid, p_query text, p_archived boolean, p_before_at timestamptz, p_before_id uuid, p_limit integer
) returns json language sql stable as $$
    with page as (
        select c.id, c.updated_at
          from rustygpt.participants p join rustygpt.conversations c on c.id = p.conversation_id
         where p.user_id = p_user_id and p.left_at is null and c.deleted_at is null
           and (p_query is null or strpos(lower(c.title), lower(p_query)) > 0)
           and (p_archived is null or (c.archived_at is not null) = p_archived)
           and (p_before_at is null or (c.updated_at, c.id) < (p_before_at, p_before_id))
         order by c.updated_at desc, c.id desc limit p_limit + 1),
    shown as (select * from page order by updated_at desc, id desc limit p_limit)
    select json_build_object(
        'conversations', coalesce((
            select json_agg(rustygpt.own_conversation_json(id, p_user_id) order by updated_at desc, id desc)
              from shown), '[]'::json),
        'next_before', case when (select count(*) from page) > p_limit then (
            select rustygpt.instant(updated_at) || ',' || id from shown order by updated_at, id limit 1) end,
        'cursor', rustygpt.channel_cursor(p_user_id))
$$;

create or replace function rustygpt.api_get_conversation(p_session bytea, p_conversation_id uuid) returns json
language plpgsql volatile as $$
declare
    actor uuid := rustygpt.sign_in(p_session);
begin
    perform rustygpt.require_role(p_conversation_id, 'viewer');
    return (select rustygpt.own_conversation_json(p_conversation_id, actor) || jsonb_build_object(
        'participants', rustygpt.participants_json(p_conversation_id),
        'cursor', rustygpt.channel_cursor(p_conversation_id)));
end
$$;

-- For somebody who may do this: from here on nobody else changes the conversation.
create or replace function rustygpt.lock_conversation(p_conversation_id uuid, p_least rustygpt.conversation_role)
returns void language plpgsql volatile as $$
begin
    perform rustygpt.require_role(p_conversation_id, p_least);
    perform rustygpt.lock_channel(p_conversation_id);
    -- Again: the right may have ended while the lock was waited for.
    perform rustygpt.require_role(p_conversation_id, p_least);
end
$$;

-- p_changes: any of title, archived, is_group, model, system_prompt, temperature, reply_mode; what is not in it
-- stays. A null sets model, system prompt and temperature back to what the model has by itself.
create or replace function rustygpt.api_change_conversation(
    p_session bytea, p_conversation_id uuid, p_changes jsonb
) returns json language plpgsql volatile as $$
declare
    actor uuid := rustygpt.sign_in(p_session);
begin
    perform rustygpt.lock_conversation(p_conversation_id,
        case when p_changes - 'title' = '{}' then 'member' else 'admin' end::rustygpt.conversation_role);
    update rustygpt.conversations
       set title = coalesce(p_changes ->> 'title', title),
           is_group = coalesce((p_changes ->> 'is_group')::boolean, is_group),
           archived_at = case p_changes ->> 'archived' when 'true' then coalesce(archived_at, now())
                                                       when 'false' then null else archived_at end,
           model = case when p_changes ? 'model' then p_changes ->> 'model' else model end,
           system_prompt = case when p_changes ? 'system_prompt' then p_changes ->> 'system_prompt'
                                else system_prompt end,
           temperature = case when p_changes ? 'temperature' then (p_changes ->> 'temperature')::real
                              else temperature end,
           reply_mode = coalesce((p_changes ->> 'reply_mode')::rustygpt.reply_mode, reply_mode),
           updated_at = now()
     where id = p_conversation_id;
    perform rustygpt.tell_conversation(p_conversation_id);
    return rustygpt.own_conversation_json(p_conversation_id, actor);
end
$$;

-- Under the channel's lock, after all other events of the conversation's channel: inboxes come last.
create or replace function rustygpt.tell_conversation(p_conversation_id uuid) returns void
language plpgsql volatile as $$
declare
    payload json := json_build_object('conversation', rustygpt.conversation_json(p_conversation_id));
    person uuid;
begin
    perform rustygpt.append_event(p_conversation_id, 'conversation.updated', payload);
    for person in
        select user_id from rustygpt.participants
         where conversation_id = p_conversation_id and left_at is null order by user_id
    loop
        perform rustygpt.append_event(person, 'conversation.updated', payload);
    end loop;
end
$$;

create or replace function rustygpt.api_delete_conversation(p_session bytea, p_conversation_id uuid) returns void
language plpgsql volatile as $$
begin
    perform rustygpt.sign_in(p_session);
    perform rustygpt.lock_conversation(p_conversation_id, 'owner');
    perform rustygpt.end_conversation(p_conversation_id);
end
$$;

-- Answers that are being written end here: their replicas find the turn lost with their next append.
create or replace function rustygpt.end_conversation(p_conversation_id uuid) returns void
language plpgsql volatile as $$
declare
    answer uuid;
begin
    for answer in
        select message_id from rustygpt.turns
         where conversation_id = p_conversation_id and state <> 'done' order by message_id
    loop
        perform rustygpt.end_turn(answer, 'cancelled');
    end loop;
    update rustygpt.conversations set deleted_at = now(), updated_at = now() where id = p_conversation_id;
    perform rustygpt.tell_conversation(p_conversation_id);
end
$$;
