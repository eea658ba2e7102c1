-- Functions, procedures and aggregates.
select 'pg_proc'::regclass::oid as class, p.oid, q.label, q.value, q.mend, q.undo, q.probe
  from pg_catalog.pg_proc p
       join pg_catalog.pg_namespace n on n.oid = p.pronamespace
       join pg_catalog.pg_language l on l.oid = p.prolang
       left join pg_catalog.pg_aggregate a on a.aggfnoid = p.oid,
       lateral (select case when p.prokind <> 'a' then pg_catalog.pg_get_functiondef(p.oid) end as definition,
                       case p.prokind when 'p' then 'procedure' else 'function' end as word,
                       @sql_body as sql_body) d,
       lateral (values
           ('', '', d.definition, null, null),
           ('kind', case p.prokind when 'f' then 'function' when 'p' then 'procedure' when 'a' then 'aggregate' else 'window function' end, null, null, null),
           ('arguments', pg_catalog.pg_get_function_arguments(p.oid), d.definition, null, null),
           ('result', pg_catalog.pg_get_function_result(p.oid), d.definition, null, null),
           ('language', l.lanname::text, d.definition, null, null),
           ('body', case when d.sql_body is null and p.prokind <> 'a' then p.prosrc end, d.definition, null, null),
           ('body in SQL', d.sql_body, d.definition, null,
            pg_catalog.format('create %s pg_temp.pgmig_verify(%s) %s language sql %s', d.word, pg_catalog.pg_get_function_arguments(p.oid),
                              'returns ' || pg_catalog.pg_get_function_result(p.oid), d.sql_body)),
           ('library', p.probin, d.definition, null, null),
           ('properties', pg_catalog.concat_ws(', ',
                              case p.provolatile when 'i' then 'immutable' when 's' then 'stable' else 'volatile' end,
                              case p.proparallel when 's' then 'parallel safe' when 'r' then 'parallel restricted' else 'parallel unsafe' end,
                              case when p.proisstrict then 'strict' end, case when p.prosecdef then 'security definer' end,
                              case when p.proleakproof then 'leakproof' end, 'cost ' || p.procost,
                              case when p.prorows > 0 then 'rows ' || p.prorows end,
                              'support ' || nullif(p.prosupport, 0)::regproc,
                              'transforms ' || pg_catalog.array_to_string(p.protrftypes::regtype[], ' ')), d.definition, null, null),
           ('settings', pg_catalog.array_to_string(p.proconfig, ', '), d.definition, null, null),
           ('aggregate', case when a.aggfnoid is not null then pg_catalog.concat_ws(' ', a.aggkind, a.aggnumdirectargs, a.aggtransfn::regproc, a.aggfinalfn::regproc,
                              a.aggcombinefn::regproc, a.aggserialfn::regproc, a.aggdeserialfn::regproc, a.aggmtransfn::regproc, a.aggminvtransfn::regproc,
                              a.aggmfinalfn::regproc, a.aggfinalextra, a.aggmfinalextra, a.aggfinalmodify, a.aggmfinalmodify, a.aggsortop::regoperator,
                              a.aggtranstype::regtype, a.aggtransspace, a.aggmtranstype::regtype, a.aggmtransspace, a.agginitval, a.aggminitval) end, null, null, null)
       ) q (label, value, mend, undo, probe)
 where n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'pgmig')
   and q.value is not null
