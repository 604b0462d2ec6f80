-- The periodic work. Each call is a short transaction, to be repeated while it finds something. Any number of callers
-- at once do nothing twice.

-- Online without a beat becomes away, away becomes offline. Returns how many people changed, at most p_limit.
create or replace function rustygpt.worker_age_presence(p_away interval, p_offline interval, p_limit integer)
returns integer language plpgsql volatile as $$
declare
    people uuid[];
begin
    with silent as (
        select user_id,
               case when last_seen_at < now() - p_offline then 'offline' else 'away' end::rustygpt.presence_status as status
          from rustygpt.presence
         where status <> 'offline'
           and (last_seen_at < now() - p_offline or (status = 'online' and last_seen_at < now() - p_away))
         -- Who is being beaten for, or aged by another caller, needs no ageing here.
         order by user_id limit p_limit for no key update skip locked),
    aged as (
        update rustygpt.presence p set status = silent.status from silent where p.user_id = silent.user_id
        returning p.user_id)
    select coalesce(array_agg(user_id), '{}') into people from aged;
    if cardinality(people) > 0 then
        perform rustygpt.tell_presence(people);
    end if;
    return cardinality(people);
end
$$;

-- Ends one turn that nobody ends, its model being down: past its deadline by p_grace, which is for a replica that is
-- about to end it. False: there is none.
create or replace function rustygpt.worker_expire_turn(p_grace interval) returns boolean
language plpgsql volatile as $$
declare
    late rustygpt.turns;
begin
    select * into late from rustygpt.turns
     where state <> 'done' and deadline_at < now() - p_grace and (state = 'queued' or lease_expires_at < now())
     order by deadline_at limit 1;
    if not found then
        return false;
    end if;
    perform rustygpt.end_orphan(late, 'timeout',
        'No model answered in time. Ask again, or ask an operator whether the model is running.');
    return true;
end
$$;

-- Ends one turn that has waited for p_patience while no replica of its model was there. Only for a caller who has
-- watched for so long itself: when everything starts anew, turns are older than the models. False: there is none.
create or replace function rustygpt.worker_abandon_turn(p_patience interval) returns boolean
language plpgsql volatile as $$
declare
    left_over rustygpt.turns;
begin
    select * into left_over from rustygpt.turns t
     where state <> 'done' and created_at < now() - p_patience and (state = 'queued' or lease_expires_at < now())
       and not exists (select 1 from rustygpt.live_models l
                        where l.model = t.model and l.seen_at > now() - p_patience)
     order by created_at limit 1;
    if not found then
        return false;
    end if;
    perform rustygpt.end_orphan(left_over, 'error', format(
        'The model %s is not running. Ask an operator to start it, or choose another model, and ask again.',
        left_over.model));
    return true;
end
$$;

-- Ends a turn that nobody works on, unless somebody has begun to.
create or replace function rustygpt.end_orphan(p_turn rustygpt.turns, p_reason text, p_error text) returns void
language plpgsql volatile as $$
declare
    late rustygpt.turns := p_turn;
begin
    perform rustygpt.lock_channel(late.conversation_id);
    -- Again, as it is once nobody else can change it.
    select * into late from rustygpt.turns
     where message_id = late.message_id and (state = 'queued' or (state = 'running' and lease_expires_at < now()));
    if not found then
        return;
    elsif late.cancel_requested then
        perform rustygpt.end_turn(late.message_id, 'cancelled');
    else
        perform rustygpt.end_turn(late.message_id, p_reason, null, p_error);
    end if;
end
$$;

-- Readers go by expires_at, so there is nothing to tell.
create or replace function rustygpt.worker_purge_typing(p_limit integer) returns integer
language sql volatile as $$
    with gone as (
        delete from rustygpt.typing where ctid = any (array(
            select ctid from rustygpt.typing where expires_at < now() limit p_limit for update skip locked))
        returning 1)
    select count(*)::integer from gone
$$;

create or replace function rustygpt.worker_purge_keys(p_keep interval, p_limit integer) returns integer
language sql volatile as $$
    with gone as (
        delete from rustygpt.idempotency_keys where ctid = any (array(
            select ctid from rustygpt.idempotency_keys
             where created_at < now() - p_keep order by created_at limit p_limit for update skip locked))
        returning 1)
    select count(*)::integer from gone
$$;

-- p_keep after its end, until when its owner is told that the session has expired.
create or replace function rustygpt.worker_purge_sessions(p_keep interval, p_limit integer) returns integer
language sql volatile as $$
    with gone as (
        delete from rustygpt.sessions where ctid = any (array(
            select ctid from rustygpt.sessions
             where least(expires_at, absolute_expires_at) < now() - p_keep limit p_limit for update skip locked))
        returning 1)
    select count(*)::integer from gone
$$;
