create or replace function rustygpt.api_create_conversation(p_session bytea, p_title text, p_is_group boolean)
returns json language plpgsql volatile as $$
declare
    actor uuid := rustygpt.sign_in(p_session);
    new_id uuid := rustygpt.uuid_v7();
begin
    insert into rustygpt.conversations (id, title, is_group, created_by) values (new_id, p_title, p_is_group, actor);
    perform rustygpt.add_first_owner(new_id, actor);
    return json_build_object('conversation_id', new_id, 'cursor', rustygpt.channel_cursor(new_id));
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

-- One event to the conversation, one to the inbox of the person concerned.
create or replace function rustygpt.tell_membership(
    p_conversation_id uuid, p_user_id uuid, p_role text, p_action text
) returns void language plpgsql volatile as $$
declare
    payload json := json_build_object('conversation_id', p_conversation_id, 'user_id', p_user_id,
                                      'role', p_role, 'action', p_action);
begin
    perform rustygpt.append_event(p_conversation_id, 'membership.changed', payload);
    perform rustygpt.append_event(p_user_id, 'membership.changed', payload);
end
$$;

create or replace function rustygpt.api_list_conversations(p_session bytea) returns json
language plpgsql volatile as $$
declare
    actor uuid := rustygpt.sign_in(p_session);
begin
    return json_build_object('conversations', coalesce((
        select json_agg(json_build_object(
                   'id', c.id, 'title', c.title, 'is_group', c.is_group, 'role', p.role,
                   'created_at', rustygpt.instant(c.created_at), 'updated_at', rustygpt.instant(c.updated_at))
                   order by c.updated_at desc, c.id)
          from rustygpt.participants p join rustygpt.conversations c on c.id = p.conversation_id
         where p.user_id = actor and p.left_at is null), '[]'::json));
end
$$;

create or replace function rustygpt.api_get_conversation(p_session bytea, p_conversation_id uuid) returns json
language plpgsql volatile as $$
begin
    perform rustygpt.sign_in(p_session);
    perform rustygpt.require_role(p_conversation_id, 'viewer');
    return (
        select json_build_object(
            'id', c.id, 'title', c.title, 'is_group', c.is_group, 'role', rustygpt.actor_role(c.id),
            'created_at', rustygpt.instant(c.created_at), 'updated_at', rustygpt.instant(c.updated_at),
            'participants', (
                select json_agg(json_build_object('user_id', u.id, 'username', u.username,
                                                  'display_name', u.display_name, 'role', p.role)
                                order by p.joined_at, u.id)
                  from rustygpt.participants p join rustygpt.users u on u.id = p.user_id
                 where p.conversation_id = c.id and p.left_at is null),
            'cursor', rustygpt.channel_cursor(c.id))
          from rustygpt.conversations c where c.id = p_conversation_id);
end
$$;

create or replace function rustygpt.api_add_participant(
    p_session bytea, p_conversation_id uuid, p_user_id uuid, p_role rustygpt.conversation_role
) returns void language plpgsql volatile as $$
begin
    perform rustygpt.sign_in(p_session);
    perform rustygpt.require_role(p_conversation_id, case when p_role = 'owner' then 'owner' else 'admin' end::rustygpt.conversation_role);
    if not exists (select 1 from rustygpt.users where id = p_user_id and disabled_at is null) then
        perform rustygpt.fail(404, 'RGP.NOT_FOUND', 'There is no such user.');
    end if;
    perform rustygpt.lock_channel(p_conversation_id);
    insert into rustygpt.participants (conversation_id, user_id, role) values (p_conversation_id, p_user_id, p_role)
    on conflict (conversation_id, user_id) do update
       set role = excluded.role, joined_at = now(), left_at = null
     where participants.left_at is not null;
    if not found then
        perform rustygpt.fail(409, 'RGP.CONFLICT', 'This person takes part already.');
    end if;
    perform rustygpt.tell_membership(p_conversation_id, p_user_id, p_role::text, 'added');
end
$$;

create or replace function rustygpt.api_remove_participant(p_session bytea, p_conversation_id uuid, p_user_id uuid)
returns void language plpgsql volatile as $$
declare
    actor uuid := rustygpt.sign_in(p_session);
    held rustygpt.conversation_role;
begin
    -- Anybody may leave; removing somebody else takes an admin.
    perform rustygpt.require_role(p_conversation_id, case when p_user_id = actor then 'viewer' else 'admin' end::rustygpt.conversation_role);
    -- Membership changes of a conversation take turns: what is read from here on stays true.
    perform rustygpt.lock_channel(p_conversation_id);
    select role into held from rustygpt.participants
     where conversation_id = p_conversation_id and user_id = p_user_id and left_at is null;
    if held is null then
        perform rustygpt.fail(404, 'RGP.NOT_FOUND', 'This person does not take part in the conversation.');
    elsif held = 'owner' and rustygpt.actor_role(p_conversation_id) <> 'owner' then
        perform rustygpt.fail(403, 'RGP.RBAC.FORBIDDEN', 'Only an owner may remove an owner.');
    end if;
    perform rustygpt.end_participation(p_conversation_id, p_user_id);
end
$$;

-- Serialised by the channel's lock, so that two owners who leave at once cannot both go.
create or replace function rustygpt.end_participation(p_conversation_id uuid, p_user_id uuid) returns void
language plpgsql volatile as $$
begin
    if not exists (select 1 from rustygpt.participants where conversation_id = p_conversation_id
                      and user_id <> p_user_id and role = 'owner' and left_at is null) then
        perform rustygpt.fail(409, 'RGP.CONFLICT', 'The last owner cannot leave. Make somebody else an owner first.');
    end if;
    update rustygpt.participants set left_at = now()
     where conversation_id = p_conversation_id and user_id = p_user_id;
    perform rustygpt.tell_membership(p_conversation_id, p_user_id, null, 'removed');
end
$$;
