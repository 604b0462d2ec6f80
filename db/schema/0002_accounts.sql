create table rustygpt.users (
    id            uuid primary key,
    email         text not null check (length(email) between 3 and 254),
    username      text not null check (length(username) between 3 and 64),
    display_name  text check (length(display_name) between 1 and 128),
    password_hash text not null,               -- Argon2id, PHC string
    is_admin      boolean not null default false,
    disabled_at   timestamptz,
    created_at    timestamptz not null default now()
);
create unique index users_email_key on rustygpt.users (lower(email));
create unique index users_username_key on rustygpt.users (lower(username));

create table rustygpt.sessions (
    token_hash          bytea primary key,     -- SHA-256 of the opaque token; the token itself is never stored
    user_id             uuid not null references rustygpt.users on delete cascade,
    csrf_token          text not null,
    created_at          timestamptz not null default now(),
    expires_at          timestamptz not null,  -- idle limit, moved forward by use
    absolute_expires_at timestamptz not null
);
create index sessions_user_idx on rustygpt.sessions (user_id, created_at desc);
