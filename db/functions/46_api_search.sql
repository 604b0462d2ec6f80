-- Messages of the actor's conversations that p_query finds, the best first and of equals the newest; as a search
-- engine reads it: words, "phrases", or, -without. The last word may be the beginning of one.
-- p_after_*: the last page's last (rank, created_at, id). A mark, not an offset: what is written between two pages
-- neither repeats nor hides a result. Ranks are computed anew for each page, which an offset would need as well.
create or replace function rustygpt.api_search(
    p_session bytea, p_query text, p_conversation_id uuid,
    p_after_rank real, p_after_at timestamptz, p_after_id uuid, p_limit integer
) returns json language plpgsql volatile as $$
declare
    actor uuid := rustygpt.sign_in(p_session);
    wanted tsquery := rustygpt.search_query(p_query);
begin
    if querytree(wanted) in ('', 'T') then
        perform rustygpt.fail(400, 'RGP.VALIDATION', 'Give at least one word to look for.');
    end if;
    if p_conversation_id is not null then
        perform rustygpt.require_role(p_conversation_id, 'viewer');
    end if;
    return rustygpt.search_page(actor, wanted, p_conversation_id, p_after_rank, p_after_at, p_after_id, p_limit);
end
$$;

-- Cuts scripts without spaces into characters, as the column messages.search does.
create or replace function rustygpt.search_text(p_text text) returns text
language sql immutable as $$
    select regexp_replace(p_text,
        '[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]',
        E'\u0001\\&\u0001', 'g')
$$;

-- A last word that is not quoted, not followed by a space and not one to be absent, finds longer words as well.
create or replace function rustygpt.search_query(p_query text) returns tsquery
language sql immutable as $$
    select case when p_query ~ '["\s]$' or words ~ '!''([^'']|'''')*''$' then words
                else regexp_replace(words, '''$', ''':*') end::tsquery
      from (select websearch_to_tsquery('simple', rustygpt.search_text(p_query))::text as words) parsed
$$;

-- The system's work: under row-level security `@@` could not use its index, since it is not leakproof; who takes part
-- is asked once instead. Of more than 10,000 messages found the newest 10,000 are ranked. The plan is made for each
-- query, since one for all would not know how rare the words are, and never reads all messages, most of which are
-- others': with 1,000,000, of which 110,000 one's own, a word that stands in four of five is found in 0.24 s, not 0.66.
create or replace function rustygpt.search_page(
    p_user_id uuid, p_wanted tsquery, p_conversation_id uuid,
    p_after_rank real, p_after_at timestamptz, p_after_id uuid, p_limit integer
) returns json language plpgsql stable set plan_cache_mode = force_custom_plan set enable_seqscan = off as $$
declare
    places uuid[] := array(
        select c.id from rustygpt.participants p join rustygpt.conversations c on c.id = p.conversation_id
         where p.user_id = p_user_id and p.left_at is null and c.deleted_at is null
           and (p_conversation_id is null or c.id = p_conversation_id));
begin
    return (
        with found as materialized (
            select id, created_at, search from rustygpt.messages
             where search @@ p_wanted and conversation_id = any (places) and deleted_at is null
             order by created_at desc, id desc limit 10000),
        ranked as (
            -- Divided by the logarithm of the length: a long message is no better for being long.
            select id, created_at, ts_rank_cd(search, p_wanted, 1) as rank from found),
        page as (
            select * from ranked
             where p_after_rank is null or (rank, created_at, id) < (p_after_rank, p_after_at, p_after_id)
             order by rank desc, created_at desc, id desc limit p_limit + 1),
        shown as (select * from page order by rank desc, created_at desc, id desc limit p_limit)
        select json_build_object(
            'results', coalesce((
                select json_agg(rustygpt.result_json(id, p_wanted, rank) order by rank desc, created_at desc, id desc)
                  from shown), '[]'::json),
            'next_after', case when (select count(*) from page) > p_limit then (
                select rank || ',' || rustygpt.instant(created_at) || ',' || id from shown
                 order by rank, created_at, id limit 1) end));
end
$$;

-- What was found stands between U+E000 and U+E001 in the snippet; neither they nor U+0001 are in it otherwise.
create or replace function rustygpt.result_json(p_message_id uuid, p_wanted tsquery, p_rank real) returns json
language sql stable as $$
    select json_build_object(
        'message_id', m.id, 'root_id', m.root_id, 'conversation_id', m.conversation_id,
        'conversation_title', c.title, 'thread_title', r.title,
        'author_id', m.author_id, 'author_name', rustygpt.message_json(m.id) -> 'author_name', 'role', m.role,
        'created_at', rustygpt.instant(m.created_at), 'rank', p_rank,
        'snippet', translate(
            ts_headline('simple',
                rustygpt.search_text(translate(left(m.content, 100000), E'\uE000\uE001', '')), p_wanted,
                E'StartSel=\uE000, StopSel=\uE001, MaxFragments=2, MinWords=8, MaxWords=24, ShortWord=0, FragmentDelimiter=" … "'),
            E'\u0001', ''))
      from rustygpt.messages m
      join rustygpt.conversations c on c.id = m.conversation_id
      join rustygpt.messages r on r.id = m.root_id
     where m.id = p_message_id
$$;
