-- Extensions, publications, statistics, and what few databases have.
select 'pg_extension'::regclass::oid as class, e.oid, p.label, p.value, p.mend, null as undo, null as probe
  from pg_catalog.pg_extension e,
       lateral (values
           ('', '', pg_catalog.format('create extension %I schema %s version %L', e.extname, e.extnamespace::regnamespace, e.extversion)),
           ('version', e.extversion, pg_catalog.format('alter extension %I update to %L', e.extname, e.extversion)),
           ('default version', (select default_version from pg_catalog.pg_available_extensions a where a.name = e.extname), null),
           ('schema', e.extnamespace::regnamespace::text, null)
       ) p (label, value, mend)
 where p.value is not null
union all
select 'pg_publication'::regclass, u.oid, p.label, p.value, p.mend, null, null
  from pg_catalog.pg_publication u,
       lateral (values
           ('all tables', case when u.puballtables then 'yes' else 'no' end, null),
           ('publishes', pg_catalog.concat_ws(', ', case when u.pubinsert then 'insert' end, case when u.pubupdate then 'update' end,
                              case when u.pubdelete then 'delete' end, case when u.pubtruncate then 'truncate' end),
            pg_catalog.format('alter publication %I set (publish = %L)', u.pubname, pg_catalog.concat_ws(', ', case when u.pubinsert then 'insert' end,
                              case when u.pubupdate then 'update' end, case when u.pubdelete then 'delete' end, case when u.pubtruncate then 'truncate' end))),
           ('via root', case when u.pubviaroot then 'yes' else 'no' end, pg_catalog.format('alter publication %I set (publish_via_partition_root = %s)', u.pubname, u.pubviaroot)),
           ('schemas', @schemas_published, null)
       ) p (label, value, mend)
union all
select 'pg_publication_rel'::regclass, r.oid, p.label, p.value, null, null,
       case p.label when 'rows' then pg_catalog.format('create temporary view pgmig_verify as select (%s) as e from %s', p.value, r.prrelid::regclass) end
  from pg_catalog.pg_publication_rel r,
       lateral (values ('rows', @rows_published), ('columns', @columns_published)) p (label, value)
 where p.value is not null
union all
select 'pg_statistic_ext'::regclass, s.oid, p.label, p.value, p.mend, null, null
  from pg_catalog.pg_statistic_ext s,
       lateral (values
           ('', '', pg_catalog.pg_get_statisticsobjdef(s.oid)),
           ('definition', pg_catalog.pg_get_statisticsobjdef(s.oid), null),
           ('target', nullif(s.stxstattarget, -1)::text, pg_catalog.format('alter statistics %s.%I set statistics %s', s.stxnamespace::regnamespace, s.stxname, s.stxstattarget))
       ) p (label, value, mend)
 where p.value is not null
union all
select 'pg_class'::regclass, s.seqrelid, p.label, p.value, p.mend, null, null
  from pg_catalog.pg_sequence s
       join pg_catalog.pg_class c on c.oid = s.seqrelid,
       lateral (values
           ('parameters', pg_catalog.format('%s from %s by %s in %s to %s, cache %s%s', s.seqtypid::regtype, s.seqstart, s.seqincrement,
                                 s.seqmin, s.seqmax, s.seqcache, case when s.seqcycle then ', cycle' end),
            pg_catalog.format('alter sequence %s as %s start %s increment %s minvalue %s maxvalue %s cache %s %s', s.seqrelid::regclass, s.seqtypid::regtype,
                   s.seqstart, s.seqincrement, s.seqmin, s.seqmax, s.seqcache, case when s.seqcycle then 'cycle' else 'no cycle' end)),
           ('owned by', (select pg_catalog.format('%s.%I', d.refobjid::regclass, a.attname)
                           from pg_catalog.pg_depend d join pg_catalog.pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid
                          where d.classid = 'pg_class'::regclass and d.objid = s.seqrelid and d.refclassid = 'pg_class'::regclass and d.deptype in ('a', 'i')), null),
           ('persistence', case c.relpersistence when 'u' then 'unlogged' end, null)
       ) p (label, value, mend)
 where p.value is not null
union all
select 'pg_collation'::regclass, o.oid, 'definition',
       pg_catalog.concat_ws(' ', o.collprovider, o.collcollate, o.collctype,
                 coalesce(pg_catalog.to_jsonb(o) ->> 'colllocale', pg_catalog.to_jsonb(o) ->> 'colliculocale'),
                 case when not o.collisdeterministic then 'nondeterministic' end), null, null, null
  from pg_catalog.pg_collation o where o.oid >= 16384
union all
select 'pg_conversion'::regclass, o.oid, 'definition',
       pg_catalog.concat_ws(' ', pg_catalog.pg_encoding_to_char(o.conforencoding), pg_catalog.pg_encoding_to_char(o.contoencoding), o.conproc, o.condefault), null, null, null
  from pg_catalog.pg_conversion o where o.oid >= 16384
union all
select 'pg_operator'::regclass, o.oid, 'definition',
       pg_catalog.concat_ws(' ', o.oprresult::regtype, o.oprcode, o.oprcom::regoperator, o.oprnegate::regoperator, o.oprrest, o.oprjoin, o.oprcanmerge, o.oprcanhash), null, null, null
  from pg_catalog.pg_operator o where o.oid >= 16384
union all
select 'pg_opclass'::regclass, o.oid, 'definition',
       pg_catalog.concat_ws(' ', o.opcintype::regtype, nullif(o.opckeytype, 0)::regtype, o.opcdefault, f.opfnamespace::regnamespace, f.opfname), null, null, null
  from pg_catalog.pg_opclass o join pg_catalog.pg_opfamily f on f.oid = o.opcfamily where o.oid >= 16384
union all
select 'pg_opfamily'::regclass, f.oid, 'members',
       pg_catalog.concat_ws('; ',
           (select pg_catalog.string_agg(pg_catalog.concat_ws(' ', a.amopstrategy, a.amopopr::regoperator, a.amoppurpose), ', ' order by a.amoplefttype::regtype::text, a.amoprighttype::regtype::text, a.amopstrategy)
              from pg_catalog.pg_amop a where a.amopfamily = f.oid),
           (select pg_catalog.string_agg(pg_catalog.concat_ws(' ', a.amprocnum, a.amproc::regprocedure), ', ' order by a.amproclefttype::regtype::text, a.amprocrighttype::regtype::text, a.amprocnum)
              from pg_catalog.pg_amproc a where a.amprocfamily = f.oid)), null, null, null
  from pg_catalog.pg_opfamily f where f.oid >= 16384
union all
select 'pg_cast'::regclass, o.oid, 'definition', pg_catalog.concat_ws(' ', nullif(o.castfunc, 0)::regprocedure, o.castcontext, o.castmethod), null, null, null
  from pg_catalog.pg_cast o where o.oid >= 16384
union all
select 'pg_transform'::regclass, o.oid, 'definition', pg_catalog.concat_ws(' ', o.trffromsql::oid::regprocedure, o.trftosql::oid::regprocedure), null, null, null
  from pg_catalog.pg_transform o
union all
select 'pg_language'::regclass, o.oid, 'definition',
       pg_catalog.concat_ws(' ', o.lanpltrusted, nullif(o.lanplcallfoid, 0)::regproc, nullif(o.laninline, 0)::regproc, nullif(o.lanvalidator, 0)::regproc), null, null, null
  from pg_catalog.pg_language o where o.oid >= 16384
union all
select 'pg_am'::regclass, o.oid, 'definition', pg_catalog.concat_ws(' ', o.amtype, o.amhandler), null, null, null
  from pg_catalog.pg_am o where o.oid >= 16384
union all
select 'pg_foreign_data_wrapper'::regclass, o.oid, 'definition',
       pg_catalog.concat_ws(' ', nullif(o.fdwhandler, 0)::regproc, nullif(o.fdwvalidator, 0)::regproc, pg_catalog.hashtextextended((select pg_catalog.string_agg(v, ' ' order by v) from pg_catalog.unnest(o.fdwoptions) v), 0)), null, null, null
  from pg_catalog.pg_foreign_data_wrapper o
union all
-- Options may hold passwords: they are compared and not shown.
select 'pg_foreign_server'::regclass, o.oid, 'definition',
       pg_catalog.concat_ws(' ', w.fdwname, o.srvtype, o.srvversion, pg_catalog.hashtextextended((select pg_catalog.string_agg(v, ' ' order by v) from pg_catalog.unnest(o.srvoptions) v), 0)), null, null, null
  from pg_catalog.pg_foreign_server o join pg_catalog.pg_foreign_data_wrapper w on w.oid = o.srvfdw
union all
select 'pg_user_mapping'::regclass, o.umid, 'options', pg_catalog.hashtextextended((select pg_catalog.string_agg(v, ' ' order by v) from pg_catalog.unnest(o.umoptions) v), 0)::text, null, null, null
  from pg_catalog.pg_user_mappings o where o.umoptions is not null
union all
select 'pg_ts_config'::regclass, o.oid, 'mapping',
       pg_catalog.concat_ws(': ', (select prsname from pg_catalog.pg_ts_parser where oid = o.cfgparser), (select pg_catalog.string_agg(pg_catalog.concat_ws(' ', m.maptokentype, m.mapseqno, m.mapdict::regdictionary), ', ' order by m.maptokentype, m.mapseqno)
          from pg_catalog.pg_ts_config_map m where m.mapcfg = o.oid)), null, null, null
  from pg_catalog.pg_ts_config o where o.oid >= 16384
union all
select 'pg_ts_dict'::regclass, o.oid, 'options', o.dictinitoption, null, null, null
  from pg_catalog.pg_ts_dict o where o.oid >= 16384 and o.dictinitoption is not null
