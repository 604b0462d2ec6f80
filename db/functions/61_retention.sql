-- What grows old goes: in batches, each a short transaction, off the path of an append.

-- A page of channels in order of id, those after p_after: which of them have something to prune. `after` is where
-- the next page begins, null after the last. Per channel a look at its oldest event, by the primary key: an index
-- on the events' age would cost every append.
create or replace function rustygpt.worker_channels_to_prune(
    p_after uuid, p_keep interval, p_max_events bigint, p_limit integer
) returns json language sql stable as $$
    with page as (
        select id, first_offset, last_offset from rustygpt.channels where id > p_after order by id limit p_limit)
    select json_build_object(
        'after', case when (select count(*) from page) = p_limit then (
            select id from page order by id desc limit 1) end,
        'channel_ids', coalesce((
            select json_agg(id order by id) from page
             where last_offset - first_offset >= p_max_events
                or (select created_at from rustygpt.events
                     where channel_id = page.id and "offset" = page.first_offset) < now() - p_keep), '[]'::json))
$$;

-- Deletes up to p_batch events from the low end of a channel: those older than p_keep, and those beyond the newest
-- p_max_events. What is left is contiguous. It stops before the first delta of an answer that is being written, whose
-- text is in its deltas until it ends. Nothing follows in the log of a stored answer: once it is empty, it goes, so that
-- walks over all channels do not grow with answers that are only kept. Returns how many went.
create or replace function rustygpt.worker_prune_channel(
    p_channel_id uuid, p_keep interval, p_max_events bigint, p_batch integer
) returns integer language plpgsql volatile as $$
declare
    log rustygpt.channels;
    needed bigint;
    first_kept bigint;
    gone integer;
begin
    -- Under the lock, so that neither an append nor the end of a turn sees half of it.
    select * into log from rustygpt.channels where id = p_channel_id for no key update;
    select min(delta."offset") into needed
      from rustygpt.turns t
      cross join lateral (
          select e."offset" from rustygpt.events e
           where e.message_id = t.message_id and e.token_ids is not null order by e."offset" limit 1) delta
     where t.conversation_id = p_channel_id and t.state <> 'done';
    select coalesce(min("offset") filter (where is_kept), max("offset") + 1) into first_kept
      from (select "offset", coalesce("offset" >= needed, false)
                   or (created_at >= now() - p_keep and "offset" > log.last_offset - p_max_events) as is_kept
              from rustygpt.events where channel_id = p_channel_id order by "offset" limit p_batch) oldest;
    delete from rustygpt.events where channel_id = p_channel_id and "offset" < first_kept;
    get diagnostics gone = row_count;
    if gone > 0 then
        update rustygpt.channels set first_offset = first_kept where id = p_channel_id;
        delete from rustygpt.channels where id = p_channel_id and kind = 'answer' and first_offset > last_offset;
    end if;
    return gone;
end
$$;

-- A step towards nothing being left of a conversation that was deleted p_keep ago: up to p_batch of its events, then
-- of its messages, then itself. False: there is none.
create or replace function rustygpt.worker_purge_conversation(p_keep interval, p_batch integer) returns boolean
language plpgsql volatile as $$
declare
    deleted uuid;
    past bigint;
begin
    select id into deleted from rustygpt.conversations where deleted_at < now() - p_keep order by deleted_at limit 1;
    if not found then
        return false;
    end if;
    perform rustygpt.lock_channel(deleted);
    select max("offset") into past from (
        select "offset" from rustygpt.events where channel_id = deleted order by "offset" limit p_batch) oldest;
    if past is not null then
        delete from rustygpt.events where channel_id = deleted and "offset" <= past;
        update rustygpt.channels set first_offset = past + 1 where id = deleted;
        return true;
    end if;
    -- Depth-first order backwards: children before their parents.
    delete from rustygpt.messages where id = any (array(
        select id from rustygpt.messages where conversation_id = deleted order by path desc limit p_batch));
    if not found then
        delete from rustygpt.typing where conversation_id = deleted;
        delete from rustygpt.conversations where id = deleted;
        delete from rustygpt.channels where id = deleted;
    end if;
    return true;
end
$$;
