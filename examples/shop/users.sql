-- The shop's own database: what a mid-sized web shop with a community grows into.
-- Most foreign keys refuse the deletion of a row that others still point to, so erasure must go children first.
-- Those with "on delete set null" are references into somebody else's records: the record stays, the pointer goes.

create table accounts (
    id text primary key,
    email text not null unique,
    phone text,
    username text not null unique,
    password_hash text not null,
    stripe_customer_id text unique,
    created_at timestamptz not null,
    last_login_at timestamptz,
    restricted boolean not null default false,
    restricted_at timestamptz
);

create table profiles (
    account_id text primary key references accounts,
    first_name text not null,
    last_name text not null,
    display_name text not null,
    born date,
    gender text,
    language text not null,
    job_title text,
    bio text,
    hidden boolean not null default false
);

create table addresses (
    id bigint primary key,
    account_id text not null references accounts,
    kind text not null,
    recipient text not null,
    street text not null,
    postal_code text not null,
    city text not null,
    country text not null
);

create table social_logins (
    provider text,
    subject text,
    account_id text not null references accounts,
    email text,
    profile_url text,
    linked_at timestamptz not null,
    primary key (provider, subject)
);

create table payment_methods (
    id bigint primary key,
    account_id text not null references accounts,
    processor text not null,
    brand text not null,
    last4 text not null,
    expires text not null
);

create table files (
    id bigint primary key,
    account_id text not null references accounts,
    name text not null,
    media_type text not null,
    bytes bigint not null,
    storage_key text not null unique,
    uploaded_at timestamptz not null
);

create table posts (
    id bigint primary key,
    account_id text not null references accounts,
    cover_file_id bigint references files,
    title text not null,
    body text not null,
    published_at timestamptz not null
);

create table comments (
    id bigint primary key,
    post_id bigint references posts on delete set null,
    parent_id bigint references comments on delete set null,
    account_id text not null references accounts,
    body text not null,
    written_at timestamptz not null
);

-- A message belongs to its sender; the recipient can lose their account and the sender keeps what they wrote.
create table messages (
    id bigint primary key,
    sender_id text not null references accounts,
    recipient_id text references accounts on delete set null,
    body text not null,
    sent_at timestamptz not null
);

create table emails_sent (
    id bigint primary key,
    account_id text not null references accounts,
    template text not null,
    to_address text not null,
    sent_at timestamptz not null,
    opened boolean not null
);

create table support_tickets (
    id bigint primary key,
    account_id text not null references accounts,
    channel text not null,
    subject text not null,
    status text not null,
    opened_at timestamptz not null
);

create table ticket_replies (
    ticket_id bigint references support_tickets,
    line integer,
    from_customer boolean not null,
    body text not null,
    primary key (ticket_id, line)
);

create table devices (
    id text primary key,
    account_id text not null references accounts,
    model text not null,
    system text not null,
    push_token text,
    first_seen timestamptz not null
);

create table sessions (
    id bigint primary key,
    account_id text not null references accounts,
    device_id text references devices,
    ip text not null,
    user_agent text not null,
    approximate_city text,
    started_at timestamptz not null
);

create table search_queries (
    id bigint primary key,
    account_id text not null references accounts,
    query text not null,
    results integer not null,
    searched_at timestamptz not null
);

create table consents (
    id bigint primary key,
    account_id text not null references accounts,
    purpose text not null,
    granted boolean not null,
    source text not null,
    changed_at timestamptz not null,
    unique (account_id, purpose)
);

create table cookies (
    id text primary key,
    account_id text not null references accounts,
    global_privacy_control boolean not null,
    set_at timestamptz not null
);

create table partner_data (
    id bigint primary key,
    account_id text not null references accounts,
    partner text not null,
    kind text not null,
    value text not null,
    received_at timestamptz not null
);

create table products (
    id bigint primary key,
    name text not null,
    price_cents integer not null
);

-- Kept for the tax period after the customer has gone; what tax law does not ask for is masked. So the account of
-- somebody who ordered stays as well, as an empty shell: its key holds the orders together.
create table orders (
    id bigint primary key,
    account_id text not null references accounts,
    recipient text,
    street text,
    postal_code text,
    city text,
    country text not null,
    currency text not null,
    total_cents integer not null,
    placed_at timestamptz not null
);

create table order_items (
    order_id bigint references orders,
    line integer,
    product_id bigint not null references products,
    quantity integer not null,
    price_cents integer not null,
    primary key (order_id, line)
);
