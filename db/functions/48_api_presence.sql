-- Who is there and who types. Locks come in one order: the conversation's channel, rows of presence, inboxes; the
-- latter two by user id.

create or replace function rustygpt.api_heartbeat(p_session bytea, p_status rustygpt.presence_status) returns void
language plpgsql volatile as $$
begin
    perform rustygpt.beat(rustygpt.sign_in(p_session), p_status);
end
$$;

-- Somebody was there just now. Those concerned are told only when the status changes.
create or replace function rustygpt.beat(p_user_id uuid, p_status rustygpt.presence_status) returns void
language plpgsql volatile as $$
declare
    before rustygpt.presence_status;
begin
    select status into strict before from rustygpt.presence where user_id = p_user_id for no key update;
    update rustygpt.presence set status = p_status, last_seen_at = now() where user_id = p_user_id;
    if before <> p_status then
        perform rustygpt.tell_presence(array[p_user_id]);
    end if;
end
$$;

-- Who posts is there. At most one write in ten seconds. Before the transaction locks any inbox: those that this
-- may lock are more than those of the conversation's participants.
create or replace function rustygpt.note_presence(p_user_id uuid) returns void
language plpgsql volatile as $$
begin
    if not exists (select 1 from rustygpt.presence
                    where user_id = p_user_id and status = 'online' and last_seen_at > now() - interval '10 seconds') then
        perform rustygpt.beat(p_user_id, 'online');
    end if;
end
$$;

-- Tells everybody who shares a conversation with these people, and themselves, what their presence is now.
create or replace function rustygpt.tell_presence(p_user_ids uuid[]) returns void
language plpgsql volatile as $$
declare
    told record;
begin
    for told in
        select concerned.reader, p.user_id, p.status, p.last_seen_at
          from (select theirs.user_id as reader, mine.user_id as person
                  from rustygpt.participants mine
                  join rustygpt.conversations c on c.id = mine.conversation_id and c.deleted_at is null
                  join rustygpt.participants theirs
                    on theirs.conversation_id = mine.conversation_id and theirs.left_at is null
                 where mine.user_id = any (p_user_ids) and mine.left_at is null
                union
                select person, person from unnest(p_user_ids) as person) concerned
          join rustygpt.presence p on p.user_id = concerned.person
         order by concerned.reader, p.user_id
    loop
        perform rustygpt.append_event(told.reader, 'presence.update', json_build_object(
            'user_id', told.user_id, 'status', told.status, 'last_seen_at', rustygpt.instant(told.last_seen_at)));
    end loop;
end
$$;

-- Of everybody who takes part in a conversation.
create or replace function rustygpt.api_list_presence(p_session bytea, p_conversation_id uuid) returns json
language plpgsql volatile as $$
declare
    actor uuid := rustygpt.sign_in(p_session);
begin
    perform rustygpt.require_role(p_conversation_id, 'viewer');
    return rustygpt.presence_json(p_conversation_id, actor);
end
$$;

-- What p_reader's inbox says after the cursor completes it. The rows are locked, since a beat that is not committed
-- yet may not have known that p_reader takes part: it is waited for.
create or replace function rustygpt.presence_json(p_conversation_id uuid, p_reader uuid) returns json
language plpgsql volatile as $$
declare
    place text := rustygpt.channel_cursor(p_reader);
begin
    perform 1 from rustygpt.presence
      where user_id in (select user_id from rustygpt.participants
                         where conversation_id = p_conversation_id and left_at is null)
      order by user_id for share;
    return (
        select json_build_object('presence', json_agg(json_build_object(
                   'user_id', s.user_id, 'status', s.status, 'last_seen_at', rustygpt.instant(s.last_seen_at))
                   order by s.user_id), 'cursor', place)
          from rustygpt.participants p join rustygpt.presence s on s.user_id = p.user_id
         where p.conversation_id = p_conversation_id and p.left_at is null);
end
$$;

-- Somebody types, in a thread or (p_root_id null) at the first message of a new one, and will say so again within
-- p_seconds; 0 or less: no more. Readers are told half as long again, at most p_longest_seconds: what is said again
-- in the meantime needs no event, and nobody is shown as having stopped who has not.
create or replace function rustygpt.api_set_typing(
    p_session bytea, p_conversation_id uuid, p_root_id uuid, p_seconds double precision,
    p_longest_seconds double precision
) returns void language plpgsql volatile as $$
declare
    actor uuid := rustygpt.sign_in(p_session);
    asked double precision := least(p_seconds, p_longest_seconds / 1.5);
begin
    perform rustygpt.require_role(p_conversation_id, 'member');
    if p_root_id is not null and not exists (
        select 1 from rustygpt.messages
         where id = p_root_id and conversation_id = p_conversation_id and parent_id is null) then
        perform rustygpt.fail(404, 'RGP.NOT_FOUND', 'There is no such thread in this conversation.');
    end if;
    if exists (select 1 from rustygpt.typing
                where conversation_id = p_conversation_id and user_id = actor and root_id is not distinct from p_root_id
                  and asked > 0 and expires_at >= now() + make_interval(secs => asked)) then
        return;
    end if;
    perform rustygpt.lock_channel(p_conversation_id);
    perform rustygpt.require_role(p_conversation_id, 'member');   -- the right may have ended meanwhile
    if asked <= 0 then
        perform rustygpt.end_typing(p_conversation_id, p_root_id, actor);
        return;
    end if;
    insert into rustygpt.typing (conversation_id, user_id, root_id, expires_at)
    values (p_conversation_id, actor, p_root_id, now() + make_interval(secs => asked * 1.5))
    on conflict (conversation_id, user_id, root_id) do update set expires_at = excluded.expires_at;
    perform rustygpt.tell_typing(p_conversation_id, p_root_id, actor, now() + make_interval(secs => asked * 1.5));
end
$$;

create or replace function rustygpt.tell_typing(
    p_conversation_id uuid, p_root_id uuid, p_user_id uuid, p_expires_at timestamptz
) returns void language sql volatile as $$
    select rustygpt.append_event(p_conversation_id, 'typing.update', json_build_object(
        'conversation_id', p_conversation_id, 'root_id', p_root_id, 'user_id', p_user_id,
        'expires_at', rustygpt.instant(p_expires_at)))
$$;

-- Somebody types no more: gave it up, or has posted. Under the channel's lock. Readers who were told that it goes
-- on are told that it ended.
create or replace function rustygpt.end_typing(p_conversation_id uuid, p_root_id uuid, p_user_id uuid) returns void
language plpgsql volatile as $$
declare
    shown_until timestamptz;
begin
    delete from rustygpt.typing
     where conversation_id = p_conversation_id and user_id = p_user_id and root_id is not distinct from p_root_id
    returning expires_at into shown_until;
    if shown_until > now() then
        perform rustygpt.tell_typing(p_conversation_id, p_root_id, p_user_id, now());
    end if;
end
$$;

create or replace function rustygpt.api_list_typing(p_session bytea, p_conversation_id uuid) returns json
language plpgsql volatile as $$
begin
    perform rustygpt.sign_in(p_session);
    perform rustygpt.require_role(p_conversation_id, 'viewer');
    return (select rustygpt.typing_json(p_conversation_id));
end
$$;

-- Stable, so that it and the cursor are of one snapshot.
create or replace function rustygpt.typing_json(p_conversation_id uuid) returns json
language sql stable as $$
    select json_build_object(
        'typing', coalesce((
            select json_agg(json_build_object('root_id', root_id, 'user_id', user_id,
                                              'expires_at', rustygpt.instant(expires_at)) order by user_id, root_id)
              from rustygpt.typing where conversation_id = p_conversation_id and expires_at > now()), '[]'::json),
        'cursor', rustygpt.channel_cursor(p_conversation_id))
$$;
