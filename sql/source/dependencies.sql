-- Which object needs which, among those of users. Schemas are needed by all that is in them, `public`
-- too, whose oid is one of the system's.
select distinct d.classid, d.objid, d.refclassid, d.refobjid, d.deptype::text as kind
  from pg_catalog.pg_depend d
 where d.deptype in ('n', 'a', 'i', 'P', 'S', 'e')
   and d.objid >= 16384
   and (d.refobjid >= 16384 or d.refclassid = 'pg_namespace'::regclass)
   and (d.classid, d.objid) <> (d.refclassid, d.refobjid)
