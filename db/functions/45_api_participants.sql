-- Who takes part in a conversation, and as what.

create or replace function rustygpt.api_list_participants(p_session bytea, p_conversation_id uuid) returns json
language plpgsql volatile as $$
begin
    perform rustygpt.sign_in(p_session);
    perform rustygpt.require_role(p_conversation_id, 'viewer');
    return (select json_build_object('participants', rustygpt.participants_json(p_conversation_id),
                                     'cursor', rustygpt.channel_cursor(p_conversation_id)));
end
$$;

-- One event to the conversation, one to the inbox of the person concerned, who needs the conversation, too, when
-- it is new to them.
create or replace function rustygpt.tell_membership(
    p_conversation_id uuid, p_user_id uuid, p_role text, p_action text
) returns void language plpgsql volatile as $$
declare
    payload json := json_build_object('conversation_id', p_conversation_id, 'user_id', p_user_id,
                                      'role', p_role, 'action', p_action);
begin
    perform rustygpt.append_event(p_conversation_id, 'membership.changed', payload);
    perform rustygpt.append_event(p_user_id, 'membership.changed', payload);
    if p_action = 'added' then
        perform rustygpt.append_event(p_user_id, 'conversation.updated',
            json_build_object('conversation', rustygpt.conversation_json(p_conversation_id)));
    end if;
end
$$;

create or replace function rustygpt.api_add_participant(
    p_session bytea, p_once text[], p_conversation_id uuid, p_user_id uuid, p_role rustygpt.conversation_role
) returns json language plpgsql volatile as $$
declare
    actor uuid := rustygpt.sign_in(p_session);
    replay json := rustygpt.recall(actor, p_once);
begin
    if replay is not null then
        return replay;
    end if;
    perform rustygpt.lock_conversation(p_conversation_id,
        case when p_role = 'owner' then 'owner' else 'admin' end::rustygpt.conversation_role);
    if not exists (select 1 from rustygpt.users where id = p_user_id and disabled_at is null) then
        perform rustygpt.fail(404, 'RGP.NOT_FOUND', 'There is no such user.');
    end if;
    insert into rustygpt.participants (conversation_id, user_id, role) values (p_conversation_id, p_user_id, p_role)
    on conflict (conversation_id, user_id) do update
       set role = excluded.role, joined_at = now(), left_at = null
     where participants.left_at is not null;
    if not found then
        perform rustygpt.fail(409, 'RGP.CONFLICT', 'This person takes part already.');
    end if;
    perform rustygpt.tell_membership(p_conversation_id, p_user_id, p_role::text, 'added');
    return rustygpt.remember(actor, p_once, rustygpt.participant_json(p_conversation_id, p_user_id));
end
$$;

-- An admin changes roles; where an owner is concerned, or is to be one, only an owner does.
create or replace function rustygpt.api_change_role(
    p_session bytea, p_conversation_id uuid, p_user_id uuid, p_role rustygpt.conversation_role
) returns json language plpgsql volatile as $$
declare
    held rustygpt.conversation_role;
begin
    perform rustygpt.sign_in(p_session);
    perform rustygpt.lock_conversation(p_conversation_id, 'admin');
    held := rustygpt.role_of(p_conversation_id, p_user_id);
    if held <> p_role then
        if 'owner' in (held, p_role) then
            perform rustygpt.require_role(p_conversation_id, 'owner');
            perform rustygpt.require_owner_besides(p_conversation_id, p_user_id, p_role);
        end if;
        update rustygpt.participants set role = p_role
         where conversation_id = p_conversation_id and user_id = p_user_id;
        perform rustygpt.tell_membership(p_conversation_id, p_user_id, p_role::text, 'role_updated');
    end if;
    return rustygpt.participant_json(p_conversation_id, p_user_id);
end
$$;

-- Anybody may leave; removing somebody else takes an admin, and an owner where an owner is removed.
create or replace function rustygpt.api_remove_participant(p_session bytea, p_conversation_id uuid, p_user_id uuid)
returns void language plpgsql volatile as $$
declare
    actor uuid := rustygpt.sign_in(p_session);
    held rustygpt.conversation_role;
begin
    perform rustygpt.lock_conversation(p_conversation_id,
        case when p_user_id = actor then 'viewer' else 'admin' end::rustygpt.conversation_role);
    held := rustygpt.role_of(p_conversation_id, p_user_id);
    if held = 'owner' then
        perform rustygpt.require_role(p_conversation_id, 'owner');
        perform rustygpt.require_owner_besides(p_conversation_id, p_user_id, null);
    end if;
    update rustygpt.participants set left_at = now()
     where conversation_id = p_conversation_id and user_id = p_user_id;
    perform rustygpt.tell_membership(p_conversation_id, p_user_id, null, 'removed');
end
$$;

create or replace function rustygpt.role_of(p_conversation_id uuid, p_user_id uuid)
returns rustygpt.conversation_role language plpgsql stable as $$
declare
    held rustygpt.conversation_role;
begin
    select role into held from rustygpt.participants
     where conversation_id = p_conversation_id and user_id = p_user_id and left_at is null;
    if not found then
        perform rustygpt.fail(404, 'RGP.NOT_FOUND', 'This person does not take part in the conversation.');
    end if;
    return held;
end
$$;

-- A conversation keeps an owner. Under the channel's lock, so that two owners who leave at once cannot both go.
create or replace function rustygpt.require_owner_besides(
    p_conversation_id uuid, p_user_id uuid, p_new_role rustygpt.conversation_role
) returns void language plpgsql stable as $$
begin
    if p_new_role is distinct from 'owner' and not exists (
        select 1 from rustygpt.participants where conversation_id = p_conversation_id
           and user_id <> p_user_id and role = 'owner' and left_at is null)
    then
        perform rustygpt.fail(409, 'RGP.CONFLICT',
            'This is the last owner. Make somebody else an owner first, or delete the conversation.');
    end if;
end
$$;
