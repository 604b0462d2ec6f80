-- Unread: of a thread, the messages after one's mark that are finished, not deleted, another's, and not older than
-- one's own participation.

create or replace function rustygpt.unread_count(p_root_id uuid, p_user_id uuid, p_joined_at timestamptz)
returns bigint language plpgsql stable as $$
declare
    mark bigint := coalesce((
        select last_read_seq from rustygpt.read_marks where root_id = p_root_id and user_id = p_user_id), 0);
begin
    return (
        select count(*) from rustygpt.messages
         where root_id = p_root_id and seq > mark and state = 'done' and deleted_at is null
           and author_id is distinct from p_user_id and created_at >= p_joined_at);
end
$$;

-- Tells one participant, in the inbox, and returns the count. Whatever changes a count holds the inbox's lock from before it counts until
-- it has committed: the last event has the count that is true.
create or replace function rustygpt.tell_reader(
    p_conversation_id uuid, p_root_id uuid, p_user_id uuid, p_joined_at timestamptz, p_last_activity_at timestamptz
) returns bigint language plpgsql volatile as $$
declare
    unread bigint;
begin
    perform rustygpt.lock_channel(p_user_id);
    unread := rustygpt.unread_count(p_root_id, p_user_id, p_joined_at);
    perform rustygpt.append_event(p_user_id, 'unread.update', json_build_object(
        'conversation_id', p_conversation_id, 'root_id', p_root_id, 'unread', unread,
        'last_activity_at', rustygpt.instant(p_last_activity_at)));
    return unread;
end
$$;

-- Tells every participant what a change of the thread has made of their count. After all events of the
-- conversation's channel: inboxes are locked last, in order of user id.
create or replace function rustygpt.tell_unread(p_conversation_id uuid, p_root_id uuid) returns void
language plpgsql volatile as $$
declare
    latest timestamptz := (select last_activity_at from rustygpt.messages where id = p_root_id);
    reader record;
begin
    for reader in
        select user_id, joined_at from rustygpt.participants
         where conversation_id = p_conversation_id and left_at is null order by user_id
    loop
        perform rustygpt.tell_reader(p_conversation_id, p_root_id, reader.user_id, reader.joined_at, latest);
    end loop;
end
$$;

-- A mark goes forwards only. p_message_id null: everything that is finished now.
create or replace function rustygpt.api_mark_read(p_session bytea, p_root_id uuid, p_message_id uuid) returns json
language plpgsql volatile as $$
declare
    actor uuid := rustygpt.sign_in(p_session);
    root rustygpt.messages := rustygpt.visible_message(p_root_id);
    joined timestamptz;
    upto bigint;
    unread bigint;
begin
    perform rustygpt.require_role(root.conversation_id, 'viewer');
    if root.parent_id is not null then
        perform rustygpt.fail(400, 'RGP.VALIDATION', 'Only a thread is read: give the id of its first message.');
    end if;
    if p_message_id is null then
        select seq into upto from rustygpt.messages
         where root_id = p_root_id and state = 'done' order by seq desc limit 1;
    else
        select seq into upto from rustygpt.messages where id = p_message_id and root_id = p_root_id;
        if not found then
            perform rustygpt.fail(404, 'RGP.NOT_FOUND', 'There is no such message in this thread.');
        end if;
    end if;
    select joined_at into joined from rustygpt.participants
     where conversation_id = root.conversation_id and user_id = actor;
    insert into rustygpt.read_marks (root_id, user_id, conversation_id, last_read_seq)
    values (p_root_id, actor, root.conversation_id, upto)
    on conflict (root_id, user_id) do update set last_read_seq = excluded.last_read_seq, updated_at = now()
     where read_marks.last_read_seq < excluded.last_read_seq;
    if found then
        unread := rustygpt.tell_reader(root.conversation_id, p_root_id, actor, joined, root.last_activity_at);
    else
        unread := rustygpt.unread_count(p_root_id, actor, joined);
    end if;
    return json_build_object('root_id', p_root_id, 'unread', unread);
end
$$;

-- Threads of a conversation with something unread for a participant. Threads without activity since that person
-- joined are not looked into (instants are those of transactions' beginnings, which may wait for a lock: hence the
-- minute).
create or replace function rustygpt.unread_threads(p_conversation_id uuid, p_user_id uuid)
returns table (root_id uuid, unread bigint, last_read_seq bigint, last_activity_at timestamptz)
language sql stable as $$
    select r.id, counted.unread, coalesce(mark.last_read_seq, 0), r.last_activity_at
      from rustygpt.participants p
      join rustygpt.messages r
        on r.conversation_id = p.conversation_id and r.parent_id is null
       and r.last_activity_at >= p.joined_at - interval '1 minute'
      left join rustygpt.read_marks mark on mark.root_id = r.id and mark.user_id = p.user_id
      cross join lateral (
          select count(*) as unread from rustygpt.messages m
           where m.root_id = r.id and m.seq > coalesce(mark.last_read_seq, 0) and m.state = 'done'
             and m.deleted_at is null and m.author_id is distinct from p.user_id and m.created_at >= p.joined_at
      ) counted
     where p.conversation_id = p_conversation_id and p.user_id = p_user_id and p.left_at is null
       and counted.unread > 0
$$;

create or replace function rustygpt.unread_total(p_conversation_id uuid, p_user_id uuid) returns bigint
language sql stable as $$
    select coalesce(sum(unread), 0)::bigint from rustygpt.unread_threads(p_conversation_id, p_user_id)
$$;

create or replace function rustygpt.api_list_unread(p_session bytea, p_conversation_id uuid) returns json
language plpgsql volatile as $$
declare
    actor uuid := rustygpt.sign_in(p_session);
begin
    perform rustygpt.require_role(p_conversation_id, 'viewer');
    return (select rustygpt.unread_json(p_conversation_id, actor));
end
$$;

-- Stable, so that counts and cursor are of one snapshot.
create or replace function rustygpt.unread_json(p_conversation_id uuid, p_user_id uuid) returns json
language sql stable as $$
    select json_build_object(
        'threads', coalesce((
            select json_agg(json_build_object(
                       'root_id', root_id, 'unread', unread, 'last_read_seq', last_read_seq,
                       'last_activity_at', rustygpt.instant(last_activity_at))
                       order by last_activity_at desc, root_id desc)
              from rustygpt.unread_threads(p_conversation_id, p_user_id)), '[]'::json),
        'cursor', rustygpt.channel_cursor(p_user_id))
$$;
