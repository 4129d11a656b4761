# Varnish in front of two Caches.
vcl 4.1;

import directors;

probe ready { .url = "/readyz"; .interval = 1s; .timeout = 1s; .window = 3; .threshold = 2; .initial = 2; }
backend cache1 { .host = "cache1.example"; .port = "8100"; .probe = ready; .connect_timeout = 1s; .first_byte_timeout = 10s; }
backend cache2 { .host = "cache2.example"; .port = "8100"; .probe = ready; .connect_timeout = 1s; .first_byte_timeout = 10s; }

# Who may say that a photo is to be forgotten.
acl purgers { "localhost"; }

sub vcl_init {
    # Each photo always at the same Cache, so that their memories add up; the other one when it does not answer.
    new caches = directors.shard();
    caches.add_backend(cache1);
    caches.add_backend(cache2);
    caches.reconfigure();
}

sub vcl_recv {
    if (req.method == "PURGE") {
        if (client.ip !~ purgers) { return (synth(405)); }
        return (purge);
    }
    # Photos alone: /metrics, /healthz and /readyz are nobody else's business.
    if (req.url !~ "^/([0-9]+,|photo/)") { return (synth(404)); }
    if (req.method != "GET" && req.method != "HEAD") { return (synth(405)); }
    # What photos are asked for with says nothing about which photo it is.
    unset req.http.Cookie;
}

sub vcl_backend_fetch {
    set bereq.backend = caches.backend(by=URL, alt=bereq.retries);
    # Says that a cache asks, and not a user: admission = "paper" goes by this.
    set bereq.http.Via = "1.1 varnish";
}

sub vcl_backend_response {
    if (beresp.status >= 500 && bereq.retries < 1) { return (retry); }
    # How long a deleted photo may go on being given out here. Then the Cache is asked (If-None-Match), and says 304 or 404.
    if (beresp.ttl > 60s) { set beresp.ttl = 60s; }
    set beresp.grace = 0s;
    set beresp.keep = 1d;
}

sub vcl_backend_error {
    if (bereq.retries < 1) { return (retry); }
}
