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
                select 1 from rustygpt.participants p
                 where p.conversation_id = r.channel_id and p.user_id = s.user_id and p.left_at is null)))
$$;

-- Events after each channel's given offset, in order, at most p_limit of each. For a Streamer, which has
-- checked each of its readers with api_stream_open.
create or replace function rustygpt.stream_read(p_channel_ids uuid[], p_after bigint[], p_limit integer)
returns table (channel_id uuid, "offset" bigint, epoch integer, type text, payload text)
language sql stable as $$
    select w.channel_id, e."offset", c.epoch, e.type, e.payload::text
      from unnest(p_channel_ids, p_after) as w (channel_id, after)
      join rustygpt.channels c on c.id = w.channel_id
      cross join lateral (
          select * from rustygpt.events e
           where e.channel_id = w.channel_id and e."offset" > w.after order by e."offset" limit p_limit) e
     order by w.channel_id, e."offset"
$$;
