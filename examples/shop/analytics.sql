-- The event warehouse. People are known here by the cookie's pseudonym; ``identities`` says who that is, once they sign in.

create table identities (
    anonymous_id varchar primary key,
    user_id varchar,
    email varchar,
    first_seen timestamp not null,
    opted_out boolean not null,
    restricted boolean not null
);

create table events (
    event_id bigint primary key,
    anonymous_id varchar not null,
    name varchar not null,
    url varchar not null,
    referrer varchar,
    seconds_on_page integer,
    occurred_at timestamp not null
);

create table devices (
    device_id varchar primary key,
    anonymous_id varchar not null,
    browser varchar not null,
    system varchar not null,
    screen varchar not null
);

create table geo (
    anonymous_id varchar not null,
    seen_on date not null,
    city varchar not null,
    country varchar not null,
    primary key (anonymous_id, seen_on)
);

create table ad_partner_audiences (
    partner varchar not null,
    audience varchar not null,
    anonymous_id varchar not null,
    email_sha256 varchar,
    active boolean not null,
    added_at timestamp not null,
    primary key (partner, audience, anonymous_id)
);

create table daily_sales (
    day date primary key,
    orders integer not null,
    revenue_cents bigint not null
);
