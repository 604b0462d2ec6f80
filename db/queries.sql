-- Every statement that Python sends. One call, one round trip, one transaction.

-- name: is_setup
select rustygpt.api_is_setup()
-- name: setup
select rustygpt.api_setup($1, $2, $3)
-- name: login_lookup
select rustygpt.api_login_lookup($1)
-- name: open_session
select rustygpt.api_open_session($1, $2, $3, $4, $5, $6)
-- name: me
select rustygpt.api_me($1, $2)
-- name: logout
select rustygpt.api_logout($1)
-- name: create_user
select rustygpt.api_create_user($1, $2, $3, $4, $5, $6, $7)
-- name: require_admin
select rustygpt.api_require_admin($1)
-- name: find_users
select rustygpt.api_find_users($1, $2)
-- name: session_user
select rustygpt.api_session_user($1, $2)
-- name: create_key
select rustygpt.api_create_key($1, $2, $3, $4, $5, $6, $7, $8)
-- name: list_keys
select rustygpt.api_list_keys($1, $2, $3)
-- name: revoke_key
select rustygpt.api_revoke_key($1, $2)
-- name: find_key
select rustygpt.api_find_key($1)
-- name: sync_keys
select rustygpt.api_sync_keys($1, $2, $3, $4, $5, $6, $7)
-- name: served_models
select rustygpt.api_served_models($1)
-- name: model_readiness
select rustygpt.api_model_readiness($1)
-- name: create_conversation
select rustygpt.api_create_conversation($1, $2, $3, $4, $5)
-- name: list_conversations
select rustygpt.api_list_conversations($1, $2, $3, $4, $5, $6)
-- name: get_conversation
select rustygpt.api_get_conversation($1, $2)
-- name: change_conversation
select rustygpt.api_change_conversation($1, $2, $3)
-- name: delete_conversation
select rustygpt.api_delete_conversation($1, $2)
-- name: list_participants
select rustygpt.api_list_participants($1, $2)
-- name: add_participant
select rustygpt.api_add_participant($1, $2, $3, $4, $5::text::rustygpt.conversation_role)
-- name: change_role
select rustygpt.api_change_role($1, $2, $3, $4::text::rustygpt.conversation_role)
-- name: remove_participant
select rustygpt.api_remove_participant($1, $2, $3)
-- name: create_invite
select rustygpt.api_create_invite($1, $2, $3, $4, $5::text::rustygpt.conversation_role, $6, $7)
-- name: list_invites
select rustygpt.api_list_invites($1, $2, $3, $4)
-- name: revoke_invite
select rustygpt.api_revoke_invite($1, $2, $3, $4)
-- name: accept_invite
select rustygpt.api_accept_invite($1, $2, $3)
-- name: search
select rustygpt.api_search($1, $2, $3, $4, $5, $6, $7)
-- name: export
select depth, part from rustygpt.api_export($1, $2)
-- name: import
select rustygpt.api_import($1, $2, $3, $4)
-- name: post_root
select rustygpt.api_post_root($1, $2, $3, $4, $5, $6, $7)
-- name: reply
select rustygpt.api_reply($1, $2, $3, $4, $5, $6, $7)
-- name: list_threads
select rustygpt.api_list_threads($1, $2, $3, $4, $5)
-- name: get_tree
select rustygpt.api_get_tree($1, $2, $3, $4, $5)
-- name: cancel
select rustygpt.api_cancel($1, $2)
-- name: edit
select rustygpt.api_edit($1, $2, $3, $4, $5)
-- name: list_versions
select rustygpt.api_list_versions($1, $2)
-- name: delete_message
select rustygpt.api_delete_message($1, $2, $3)
-- name: restore
select rustygpt.api_restore($1, $2, $3)
-- name: regenerate
select rustygpt.api_regenerate($1, $2, $3, $4, $5, $6)
-- name: branch
select rustygpt.api_branch($1, $2, $3, $4, $5, $6, $7)
-- name: rename_thread
select rustygpt.api_rename_thread($1, $2, $3, $4)

-- name: heartbeat
select rustygpt.api_heartbeat($1, $2::text::rustygpt.presence_status)
-- name: list_presence
select rustygpt.api_list_presence($1, $2)
-- name: set_typing
select rustygpt.api_set_typing($1, $2, $3, $4, $5)
-- name: list_typing
select rustygpt.api_list_typing($1, $2)
-- name: mark_read
select rustygpt.api_mark_read($1, $2, $3)
-- name: list_unread
select rustygpt.api_list_unread($1, $2)

-- name: create_response
select rustygpt.api_create_response($1, $2, $3, $4, $5, $6, $7, $8, $9)
-- name: repeated_response
select rustygpt.api_repeated_response($1, $2, $3)
-- name: ask_in_thread
select rustygpt.api_ask_in_thread($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
-- name: read_response
select rustygpt.api_read_response($1, $2, $3, $4)
-- name: list_responses
select rustygpt.api_list_responses($1, $2, $3, $4, $5, $6, $7)
-- name: change_response
select rustygpt.api_change_response($1, $2, $3, $4, $5)
-- name: cancel_response
select rustygpt.api_cancel_response($1, $2, $3, $4)
-- name: delete_response
select rustygpt.api_delete_response($1, $2, $3, $4)

-- name: stream_open
select rustygpt.api_stream_open($1, $2, $3)
-- name: stream_recheck
select rustygpt.api_stream_recheck($1, $2)
-- name: stream_read
select * from rustygpt.stream_read($1, $2, $3, $4)
-- name: stream_read_answers
select * from rustygpt.stream_read_answers($1, $2, $3, $4, $5)

-- name: worker_claim
select rustygpt.worker_claim($1, $2, $3, $4, $5, $6)
-- name: worker_owners
select rustygpt.worker_owners($1)
-- name: worker_release
select rustygpt.worker_release($1, $2)
-- name: worker_append
select rustygpt.worker_append($1, $2, $3, $4, $5, $6)
-- name: worker_finish
select rustygpt.worker_finish($1, $2, $3, $4, $5)
-- name: worker_set_title
select rustygpt.worker_set_title($1, $2)
-- name: worker_announce
select rustygpt.worker_announce($1, $2, $3, $4)
-- name: worker_depart
select rustygpt.worker_depart($1, $2)

-- name: worker_age_presence
select rustygpt.worker_age_presence($1, $2, $3)
-- name: worker_abandon_turn
select rustygpt.worker_abandon_turn($1)
-- name: worker_expire_turn
select rustygpt.worker_expire_turn($1)
-- name: worker_purge_typing
select rustygpt.worker_purge_typing($1)
-- name: worker_purge_keys
select rustygpt.worker_purge_keys($1, $2)
-- name: worker_purge_sessions
select rustygpt.worker_purge_sessions($1, $2)
-- name: worker_purge_responses
select rustygpt.worker_purge_responses($1, $2)
-- name: worker_purge_api_keys
select rustygpt.worker_purge_api_keys($1, $2)
-- name: worker_purge_api_usage
select rustygpt.worker_purge_api_usage($1, $2)
-- name: worker_channels_to_prune
select rustygpt.worker_channels_to_prune($1, $2, $3, $4)
-- name: worker_prune_channel
select rustygpt.worker_prune_channel($1, $2, $3, $4)
-- name: worker_purge_conversation
select rustygpt.worker_purge_conversation($1, $2)

-- name: ping
select 1

-- name: lock_migrations
select pg_advisory_lock(hashtext('rustygpt.migrations'))
-- name: unlock_migrations
select pg_advisory_unlock(hashtext('rustygpt.migrations'))
-- name: create_schema
create schema if not exists rustygpt
-- name: create_ledger
create table if not exists rustygpt.migrations (
    name text primary key, checksum text not null, applied_at timestamptz not null default now())
-- name: read_ledger
select name, checksum from rustygpt.migrations
-- name: write_ledger
insert into rustygpt.migrations (name, checksum) values ($1, $2)
on conflict (name) do update set checksum = excluded.checksum, applied_at = now()
-- name: keep_secret
insert into rustygpt.secrets (name, value) values ($1, $2) on conflict (name) do nothing
-- name: read_secret
select value from rustygpt.secrets where name = $1
-- name: server_version
select current_setting('server_version_num')::integer
-- name: database_name
select current_database()
-- name: defer_function_checks
set local check_function_bodies = off
-- name: role_statement
select format(case when exists (select 1 from pg_roles where rolname = $1)
              then 'alter role %1$I login inherit password %2$L' else 'create role %1$I login inherit password %2$L' end, $1, $2::text)
-- name: grant_statement
select format('grant %I to %I', $1::text, $2::text)
