-- What may be done with a message that stands: change it, take it away, bring it back, ask for another answer.

-- What the message said before is kept as a version.
create or replace function rustygpt.api_edit(
    p_session bytea, p_idle interval, p_message_id uuid, p_content text, p_reason text
) returns json language plpgsql volatile as $$
declare
    actor uuid := rustygpt.sign_in(p_session);
    target rustygpt.messages;
begin
    perform rustygpt.touch_session(p_session, p_idle);
    target := rustygpt.locked_message(p_message_id, 'member');
    if target.role <> 'user' then
        perform rustygpt.fail(403, 'RGP.RBAC.FORBIDDEN',
            'Only what a person said can be edited. Ask for another answer instead.');
    end if;
    perform rustygpt.require_author(target);
    if target.deleted_at is not null then
        perform rustygpt.fail(409, 'RGP.CONFLICT', 'This message was deleted. Restore it first.');
    elsif target.content <> p_content then
        insert into rustygpt.message_versions (message_id, version, content, edited_by, reason)
        select p_message_id, coalesce(max(version), 0) + 1, target.content, actor, p_reason
          from rustygpt.message_versions where message_id = p_message_id;
        update rustygpt.messages set content = p_content, edited_at = now() where id = p_message_id;
        perform rustygpt.tell_updated(p_message_id);
    end if;
    return rustygpt.message_json(p_message_id);
end
$$;

create or replace function rustygpt.require_author(p_message rustygpt.messages) returns void
language plpgsql stable as $$
begin
    if p_message.author_id is distinct from rustygpt.actor_id() then
        perform rustygpt.require_role(p_message.conversation_id, 'admin');
    end if;
end
$$;

create or replace function rustygpt.api_list_versions(p_session bytea, p_message_id uuid) returns json
language plpgsql volatile as $$
begin
    perform rustygpt.sign_in(p_session);
    perform rustygpt.require_role((rustygpt.visible_message(p_message_id)).conversation_id, 'viewer');
    return (
        select json_build_object('message_id', p_message_id, 'versions', coalesce(json_agg(json_build_object(
                   'version', version, 'content', content, 'edited_by', edited_by, 'reason', reason,
                   'replaced_at', rustygpt.instant(replaced_at)) order by version), '[]'::json))
          from rustygpt.message_versions where message_id = p_message_id);
end
$$;

-- The message stays in its place, without its content. Again: nothing happens.
create or replace function rustygpt.api_delete_message(p_session bytea, p_idle interval, p_message_id uuid)
returns void language plpgsql volatile as $$
declare
    actor uuid := rustygpt.sign_in(p_session);
    target rustygpt.messages;
begin
    perform rustygpt.touch_session(p_session, p_idle);
    target := rustygpt.locked_message(p_message_id, 'member');
    perform rustygpt.require_author(target);
    if target.state <> 'done' then
        perform rustygpt.fail(409, 'RGP.CONFLICT', 'This answer is still being written. Stop it first.');
    elsif target.deleted_at is null then
        perform rustygpt.hide_message(p_message_id, actor);
    end if;
end
$$;

-- The system's work, since the row may be the assistant's.
create or replace function rustygpt.hide_message(p_message_id uuid, p_actor_id uuid) returns void
language plpgsql volatile as $$
declare
    hidden rustygpt.messages;
begin
    update rustygpt.messages set deleted_at = now(), deleted_by = p_actor_id
     where id = p_message_id returning * into strict hidden;
    perform rustygpt.append_event(hidden.conversation_id, 'message.deleted', json_build_object(
        'message_id', hidden.id, 'root_id', hidden.root_id, 'conversation_id', hidden.conversation_id,
        'deleted_at', rustygpt.instant(hidden.deleted_at)), hidden.id);
    perform rustygpt.tell_unread(hidden.conversation_id, hidden.root_id);
end
$$;

create or replace function rustygpt.api_restore(p_session bytea, p_idle interval, p_message_id uuid)
returns json language plpgsql volatile as $$
declare
    target rustygpt.messages;
begin
    perform rustygpt.sign_in(p_session);
    perform rustygpt.touch_session(p_session, p_idle);
    target := rustygpt.locked_message(p_message_id, 'admin');
    if target.deleted_at is not null then
        perform rustygpt.show_message(p_message_id);
    end if;
    return rustygpt.message_json(p_message_id);
end
$$;

create or replace function rustygpt.show_message(p_message_id uuid) returns void
language plpgsql volatile as $$
declare
    shown rustygpt.messages;
begin
    update rustygpt.messages set deleted_at = null, deleted_by = null
     where id = p_message_id returning * into strict shown;
    perform rustygpt.tell_updated(p_message_id);
    perform rustygpt.tell_unread(shown.conversation_id, shown.root_id);
end
$$;

-- Another answer beside an answer, or an answer to a message that has none, whatever the reply mode says.
create or replace function rustygpt.api_regenerate(
    p_session bytea, p_idle interval, p_once text[], p_message_id uuid, p_models text[], p_deadline interval
) returns json language plpgsql volatile as $$
declare
    actor uuid := rustygpt.sign_in(p_session);
    replay json := rustygpt.recall(actor, p_once);
    question rustygpt.messages;
begin
    if replay is not null then
        return replay;
    end if;
    perform rustygpt.touch_session(p_session, p_idle);
    question := rustygpt.locked_message(p_message_id, 'member');
    if question.role = 'assistant' then
        question := rustygpt.visible_message(question.parent_id);
    end if;
    if question.deleted_at is not null then
        perform rustygpt.fail(409, 'RGP.CONFLICT', 'The message to answer was deleted. Restore it first.');
    end if;
    return rustygpt.remember(actor, p_once, rustygpt.publish_answer(question.id, p_models, p_deadline));
end
$$;

create or replace function rustygpt.publish_answer(p_question_id uuid, p_models text[], p_deadline interval)
returns json language plpgsql volatile as $$
declare
    question rustygpt.messages := rustygpt.visible_message(p_question_id);
    before_post text := rustygpt.channel_cursor(question.conversation_id);
    model text := rustygpt.answering_model(question.conversation_id, p_models);
    answer uuid := rustygpt.enqueue_turn(p_question_id, model, p_deadline);
begin
    perform rustygpt.touch_thread(question.conversation_id, question.root_id);
    return rustygpt.post_json(question, answer, model, before_post);
end
$$;

-- A person's message said anew, beside the one that was: a sibling, or another thread where it began one.
create or replace function rustygpt.api_branch(
    p_session bytea, p_idle interval, p_once text[], p_message_id uuid, p_content text,
    p_models text[], p_deadline interval
) returns json language plpgsql volatile as $$
declare
    target rustygpt.messages;
begin
    perform rustygpt.sign_in(p_session);
    target := rustygpt.visible_message(p_message_id);
    perform rustygpt.require_role(target.conversation_id, 'member');
    if target.role <> 'user' then
        perform rustygpt.fail(403, 'RGP.RBAC.FORBIDDEN',
            'Only what a person said can be said anew. Ask for another answer instead.');
    elsif target.parent_id is null then
        return rustygpt.api_post_root(p_session, p_idle, p_once, target.conversation_id, p_content, p_models, p_deadline);
    end if;
    return rustygpt.api_reply(p_session, p_idle, p_once, target.parent_id, p_content, p_models, p_deadline);
end
$$;

-- A person's title for a thread takes the place of the model's. Null gives the thread back to the model.
create or replace function rustygpt.api_rename_thread(
    p_session bytea, p_idle interval, p_root_id uuid, p_title text
) returns json language plpgsql volatile as $$
declare
    root rustygpt.messages;
begin
    perform rustygpt.sign_in(p_session);
    perform rustygpt.touch_session(p_session, p_idle);
    root := rustygpt.locked_message(p_root_id, 'member');
    if root.parent_id is not null then
        perform rustygpt.fail(400, 'RGP.VALIDATION', 'Only a thread has a title: give the id of its first message.');
    elsif root.title is distinct from p_title then
        perform rustygpt.set_title(p_root_id, p_title);
    end if;
    return rustygpt.thread_json(p_root_id);
end
$$;

create or replace function rustygpt.set_title(p_root_id uuid, p_title text) returns void
language plpgsql volatile as $$
begin
    update rustygpt.messages set title = p_title where id = p_root_id;
    perform rustygpt.tell_updated(p_root_id);
end
$$;
