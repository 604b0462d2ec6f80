-- Fills a migrated database with conversations as if people had held them, for measurements of reading. Sent by the
-- superuser; the statements of `fill` in this order.

-- name: create_plan
create temporary table planned (
    conversation_id uuid, owner_id uuid, member_id uuid, threads integer, messages integer, branch integer,
    deltas integer, began_at timestamptz)

-- $1 conversations of one owner ($2) and one member ($3), each of $4 threads of $5 messages. Of a thread's messages
-- $6 (at least 3) follow one another; the next $6 follow the first answer, as a branch of it, and so on. The log has
-- $7 deltas of each answer.
-- name: plan
insert into planned
select rustygpt.uuid_v7(), $2, $3, $4, $5, $6, $7, now() - interval '300 days' * n / ($1 + 1)
  from generate_series(1, $1::integer) n
returning conversation_id

-- name: fill_conversations
insert into rustygpt.conversations (id, title, created_by, root_count, message_count, created_at, updated_at)
select conversation_id, 'Conversation ' || right(conversation_id::text, 8), owner_id, threads, threads * messages,
       began_at, began_at + interval '30 seconds' * threads * messages
  from planned

-- name: fill_participants
insert into rustygpt.participants (conversation_id, user_id, role, joined_at)
select conversation_id, owner_id, 'owner'::rustygpt.conversation_role, began_at from planned
union all
select conversation_id, member_id, 'member', began_at from planned

-- Users and the assistant take turns. The words have very different frequencies: of 4,000, the n-th comes about
-- n ** -0.67 times as often as the first.
-- name: fill_messages
insert into rustygpt.messages (
    id, conversation_id, root_id, parent_id, author_id, role, state, content, path, child_count, finish_reason, usage,
    created_at, seq, last_activity_at)
with placed as materialized (
    select rustygpt.uuid_v7() as id, p.*, thread, k, (k - 1) / branch as limb, (k - 1) % branch as step,
           (thread - 1) * messages + k as seq
      from planned p, generate_series(1, threads) thread, generate_series(1, messages) k),
linked as (
    select placed.*, first_value(id) over of_thread as root_id,
           case when k > 1 and step = 0 then nth_value(id, 2) over of_thread else lag(id) over of_thread end as parent_id,
           case when limb = 0 then thread || array_fill(1, array[step])
                else array[thread, 1, limb + 1] || array_fill(1, array[step]) end as path
      from placed window of_thread as (partition by conversation_id, thread order by k))
select id, conversation_id, root_id, parent_id, case when cardinality(path) % 2 = 1 then owner_id end,
       case when cardinality(path) % 2 = 1 then 'user' else 'assistant' end::rustygpt.message_role, 'done',
       (select string_agg('w' || floor(power(random(), 3) * 4000), ' ') from generate_series(1, 20 + k % 20)), path,
       case when k = 2 then (messages - 1) / branch else 0 end + (step + 1 < branch and k < messages)::integer,
       case when cardinality(path) % 2 = 0 then 'stop' end,
       case when cardinality(path) % 2 = 0 then json_build_object('total_tokens', 60) end,
       began_at + interval '30 seconds' * seq, seq,
       case when k = 1 then began_at + interval '30 seconds' * thread * messages end
  from linked

-- name: fill_turns
insert into rustygpt.turns (message_id, conversation_id, model, state, epoch, delta_count, created_at, finished_at)
select m.id, conversation_id, 'default', 'done', 1, deltas, created_at, created_at
  from rustygpt.messages m join planned using (conversation_id) where role = 'assistant'

-- The member has read every thread but each tenth, of which the last two messages are new.
-- name: fill_read_marks
insert into rustygpt.read_marks (root_id, user_id, conversation_id, last_read_seq)
select m.id, member_id, conversation_id, m.seq + messages - case when m.path[1] % 10 = 0 then 3 else 1 end
  from rustygpt.messages m join planned using (conversation_id) where m.parent_id is null

-- An answer's deltas, then its end. (What else a log holds is as long and is read in the same way.)
-- name: fill_events
with numbered as materialized (
    select m.conversation_id, m.id, m.root_id, d, deltas, m.created_at,
           row_number() over (partition by m.conversation_id order by m.seq, d) as place
      from rustygpt.messages m join planned p using (conversation_id), generate_series(1, deltas + 1) d
     where m.role = 'assistant' and deltas > 0)
insert into rustygpt.events (channel_id, "offset", type, payload, message_id, token_ids, created_at)
select conversation_id, place, type,
       json_build_object('type', type, 'payload', case type
           when 'message.delta' then json_build_object(
               'id', id || ':' || d, 'object', 'chat.completion.chunk', 'message_id', id, 'root_id', root_id,
               'conversation_id', conversation_id,
               'choices', json_build_array(json_build_object('index', 0, 'delta', json_build_object('content', ' w' || d))))
           else json_build_object('message_id', id, 'root_id', root_id, 'conversation_id', conversation_id,
               'finish_reason', 'stop') end),
       id, case type when 'message.delta' then array[d] end, created_at
  from numbered, lateral (values (case when d <= deltas then 'message.delta' else 'message.done' end)) t (type)

-- name: fill_channels
insert into rustygpt.channels (id, kind) select conversation_id, 'conversation' from planned

-- name: advance_channels
update rustygpt.channels c set last_offset = written.last
  from (select channel_id, max("offset") as last from rustygpt.events group by channel_id) written
 where written.channel_id = c.id and c.id in (select conversation_id from planned)

-- name: analyze
vacuum (analyze) rustygpt.users, rustygpt.conversations, rustygpt.participants, rustygpt.messages, rustygpt.turns,
    rustygpt.channels, rustygpt.events, rustygpt.read_marks

-- name: root
select id from rustygpt.messages where conversation_id = $1 and path = array[$2::integer]
-- The message that stands in the given place of a thread's depth-first order, from 0.
-- name: place
select id from rustygpt.messages where root_id = $1 order by path offset $2 limit 1

-- What this connection's statements, those inside functions included, have lately read of the tables that grow.
-- name: reads
select relname, seq_scan, seq_tup_read, coalesce(idx_tup_fetch, 0) as idx_tup_fetch
  from pg_stat_xact_user_tables where schemaname = 'rustygpt' and relname in ('messages', 'events')

-- name: load_auto_explain
load 'auto_explain'
-- name: show_plans
select set_config('auto_explain.' || name, value, false)
  from (values ('log_min_duration', '0'), ('log_nested_statements', 'on'), ('log_analyze', 'on'), ('log_buffers', 'on'),
               ('log_timing', 'off'), ('log_level', 'notice')) setting (name, value)
-- name: hide_plans
select set_config('auto_explain.log_min_duration', '-1', false)
