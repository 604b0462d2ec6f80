-- May this session read this channel, and where does the log stand? p_channel_id null: one's own inbox.
create or replace function rustygpt.api_stream_open(p_session bytea, p_idle interval, p_channel_id uuid) returns json
language plpgsql volatile as $$
declare
    actor uuid := rustygpt.sign_in(p_session);
    wanted uuid := coalesce(p_channel_id, actor);
begin
    perform rustygpt.touch_session(p_session, p_idle);
    if wanted <> actor then
        perform rustygpt.require_role(wanted, 'viewer');
    end if;
    return (select json_build_object('channel_id', id, 'epoch', epoch, 'first_offset', first_offset,
                                     'last_offset', last_offset)
              from rustygpt.channels where id = wanted);
end
$$;

-- Of the given (session, channel) pairs, the indexes (from 1) of those that may no longer be read.
create or replace function rustygpt.api_stream_recheck(p_sessions bytea[], p_channel_ids uuid[]) returns json
language sql stable as $$ select rustygpt.revoked_readers(p_sessions, p_channel_ids) $$;

create or replace function rustygpt.revoked_readers(p_sessions bytea[], p_channel_ids uuid[]) returns json
language sql stable as $$
    select coalesce(json_agg(place), '[]'::json)
      from unnest(p_sessions, p_channel_ids) with ordinality as r (session, channel_id, place)
     where not exists (
        select 1 from rustygpt.sessions s join rustygpt.users u on u.id = s.user_id
         where s.token_hash = r.session and u.disabled_at is null
           and least(s.expires_at, s.absolute_expires_at) > now()
           and (s.user_id = r.channel_id or exists (
                select 1 from rustygpt.participants p join rustygpt.conversations c on c.id = p.conversation_id
                 where p.conversation_id = r.channel_id and p.user_id = s.user_id and p.left_at is null
                   and c.deleted_at is null)))
$$;

-- Where each channel's log begins and ends, and the events after the given offset: at most p_limit of each channel,
-- and no more once they have p_bytes together. `offset` is null in the one row of a channel that has nothing new; a
-- channel that is gone has no row. For a Streamer, which has checked each of its readers with api_stream_open.
-- Stable: all of it is of one instant.
create or replace function rustygpt.stream_read(
    p_channel_ids uuid[], p_after bigint[], p_limit integer, p_bytes integer
) returns table (
    channel_id uuid, epoch integer, first_offset bigint, last_offset bigint, "offset" bigint, type text, payload text
) language plpgsql stable as $$
declare
    place record;
    event record;
    size bigint;
begin
    for place in
        select c.*, w.after from unnest(p_channel_ids, p_after) as w (id, after) join rustygpt.channels c using (id)
    loop
        channel_id := place.id;
        epoch := place.epoch;
        first_offset := place.first_offset;
        last_offset := place.last_offset;
        size := 0;
        -- A loop, since it stops reading long events where a query would read them all to know their sizes.
        for event in
            select e."offset", e.type, e.payload::text as payload from rustygpt.events e
             where e.channel_id = place.id and e."offset" > place.after order by e."offset" limit p_limit
        loop
            "offset" := event."offset";
            type := event.type;
            payload := event.payload;
            return next;
            size := size + octet_length(payload);
            exit when size >= p_bytes;
        end loop;
        if size = 0 then
            "offset" := null;
            type := null;
            payload := null;
            return next;
        end if;
    end loop;
end
$$;
