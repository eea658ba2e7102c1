//! The settings that are worth comparing before an application moves, in groups, and what a difference
//! may do to it. Those of one line are of one kind.

/// Names, and what a difference may do.
pub(super) type Kind = (&'static str, &'static str);

pub(super) const GROUPS: &[(&str, &[Kind])] = &[
    (
        "memory",
        &[
            (
                "shared_buffers effective_cache_size",
                "queries that found their data in memory may read from disk, or plans change",
            ),
            (
                "work_mem hash_mem_multiplier",
                "sorts and hashes that fitted into memory may go to disk; more of it may exhaust the machine",
            ),
            ("maintenance_work_mem", "index builds and vacuum take longer, or more memory"),
            ("temp_buffers", "temporary tables go to disk sooner or later"),
            ("huge_pages", "a large shared_buffers costs more page tables, or does not start without huge pages"),
        ],
    ),
    (
        "workers and I/O",
        &[
            (
                "max_worker_processes max_parallel_workers max_parallel_workers_per_gather max_parallel_maintenance_workers",
                "large queries and index builds get more or fewer workers",
            ),
            (
                "effective_io_concurrency maintenance_io_concurrency",
                "reads ahead of scans and vacuum are more or fewer",
            ),
        ],
    ),
    (
        "planner",
        &[
            ("default_statistics_target", "statistics are finer or coarser: estimates and plans change"),
            (
                "random_page_cost seq_page_cost cpu_tuple_cost cpu_index_tuple_cost cpu_operator_cost",
                "plans change: index scans are taken for more or fewer queries",
            ),
            (
                "enable_hashjoin enable_mergejoin enable_nestloop enable_seqscan enable_indexscan enable_indexonlyscan enable_bitmapscan",
                "plans change: a kind of plan is avoided on one side",
            ),
            (
                "enable_partitionwise_join enable_partitionwise_aggregate",
                "queries on partitioned tables are planned in another way",
            ),
            ("from_collapse_limit join_collapse_limit", "plans of queries with many joins change"),
            (
                "jit jit_above_cost jit_inline_above_cost jit_optimize_above_cost",
                "large queries compile, or do not: short ones may get slower",
            ),
            ("plan_cache_mode", "prepared statements are planned in another way"),
        ],
    ),
    (
        "timeouts and locks",
        &[
            ("statement_timeout", "queries that went through may be cancelled, or run for ever"),
            ("lock_timeout", "waits for locks may fail, or last"),
            (
                "idle_in_transaction_session_timeout idle_session_timeout transaction_timeout",
                "sessions that were idle may be cut off, or hold back vacuum",
            ),
            ("deadlock_timeout", "deadlocks are found sooner or later"),
            ("max_locks_per_transaction", "transactions that touch many tables may run out of shared memory"),
        ],
    ),
    (
        "what values look like",
        &[
            ("TimeZone", "times without a zone are read and printed otherwise: wrong data without an error"),
            ("DateStyle IntervalStyle", "dates are read and printed otherwise: wrong data without an error"),
            ("lc_messages lc_monetary lc_numeric lc_time", "messages and formatted numbers and dates look otherwise"),
            ("bytea_output extra_float_digits xmlbinary", "values are printed otherwise"),
            ("search_path", "names without a schema are found elsewhere, or not at all"),
            (
                "default_transaction_isolation default_transaction_read_only default_transaction_deferrable",
                "transactions see and may do other things",
            ),
            ("standard_conforming_strings backslash_quote array_nulls transform_null_equals", "SQL is read otherwise"),
            ("default_text_search_config", "full text search finds other rows"),
            ("default_toast_compression", "large values take more or less room and time"),
            (
                "session_preload_libraries local_preload_libraries",
                "functions or hooks that sessions rely on are missing",
            ),
        ],
    ),
    (
        "connections and security",
        &[
            ("max_connections superuser_reserved_connections", "the application's pools may find no free session"),
            ("password_encryption", "old clients may not be able to log in"),
            ("ssl ssl_min_protocol_version", "clients may be refused, or speak in clear"),
            ("row_security", "queries on tables with policies fail rather than hide rows, or the other way"),
            (
                "tcp_keepalives_idle tcp_keepalives_interval tcp_keepalives_count",
                "dead connections are noticed sooner or later",
            ),
        ],
    ),
    (
        "WAL and durability",
        &[
            (
                "synchronous_commit fsync full_page_writes",
                "commits are faster and may be lost in a crash, or slower and safe",
            ),
            ("synchronous_standby_names", "commits wait for standbys, or do not"),
            (
                "max_wal_size min_wal_size checkpoint_timeout checkpoint_completion_target",
                "checkpoints come more or less often: writes stall, or recovery takes longer",
            ),
            ("wal_buffers wal_compression", "writes take more or less I/O"),
            ("wal_level", "replicas and change data capture need what is on the source"),
            ("max_slot_wal_keep_size", "a slow replica loses its slot, or fills the disk"),
        ],
    ),
    (
        "replication",
        &[
            (
                "max_replication_slots max_wal_senders max_logical_replication_workers max_sync_workers_per_subscription",
                "replicas and subscriptions of the application may not fit",
            ),
            (
                "hot_standby_feedback wal_sender_timeout wal_receiver_timeout",
                "queries on standbys are cancelled, or replicas cut off",
            ),
        ],
    ),
    (
        "autovacuum",
        &[
            (
                "autovacuum autovacuum_max_workers autovacuum_naptime",
                "tables bloat, or vacuum takes more of the machine",
            ),
            (
                "autovacuum_vacuum_scale_factor autovacuum_analyze_scale_factor autovacuum_vacuum_cost_delay autovacuum_vacuum_cost_limit",
                "tables are vacuumed and analyzed more or less often",
            ),
            ("autovacuum_freeze_max_age", "freezing comes sooner or later"),
        ],
    ),
    (
        "watching",
        &[
            ("track_io_timing track_functions compute_query_id", "dashboards miss figures"),
            (
                "log_lock_waits log_min_duration_statement log_statement log_temp_files",
                "logs say more or less, and alerts on them change",
            ),
        ],
    ),
    (
        "libraries",
        &[("shared_preload_libraries", "extensions that need preloading do not work on the side that lacks theirs")],
    ),
];
