-- Which relation must be there before which: parents before children, what views and defaults read
-- before them, a table before the row type that another's column has. A sequence that a column owns
-- does not need its table, one of an identity column does.
select distinct r.relation, r.needed
  from (select case d.classid
               when 'pg_class'::regclass then d.objid
               when 'pg_rewrite'::regclass then w.ev_class
               when 'pg_attrdef'::regclass then f.adrelid
               end as relation,
               case d.refclassid
               when 'pg_class'::regclass then d.refobjid
               when 'pg_type'::regclass then coalesce(nullif(t.typrelid, 0), e.typrelid)
               end as needed,
               d.deptype
          from pg_catalog.pg_depend d
               left join pg_catalog.pg_rewrite w on d.classid = 'pg_rewrite'::regclass and w.oid = d.objid
               left join pg_catalog.pg_attrdef f on d.classid = 'pg_attrdef'::regclass and f.oid = d.objid
               left join pg_catalog.pg_type t on d.refclassid = 'pg_type'::regclass and t.oid = d.refobjid
               left join pg_catalog.pg_type e on e.oid = t.typelem
         where d.classid in ('pg_class'::regclass, 'pg_rewrite'::regclass, 'pg_attrdef'::regclass)
           and d.refclassid in ('pg_class'::regclass, 'pg_type'::regclass)
        union all
        select i.inhrelid, i.inhparent, 'n'
          from pg_catalog.pg_inherits i) r
       join pg_catalog.pg_class c on c.oid = r.relation
       join pg_catalog.pg_class n on n.oid = r.needed
 where r.relation <> r.needed
   and r.relation >= 16384 and r.needed >= 16384
   and c.relkind in ('r', 'p', 'v', 'm', 'f', 'S') and n.relkind in ('r', 'p', 'v', 'm', 'f', 'S')
   and not (c.relkind = 'S' and r.deptype = 'a')
