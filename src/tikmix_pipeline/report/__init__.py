"""What people see: tables, figures and the page of `remix`, in one style.

It may import the rooms that measure and decide, `parameters` and `statistics`; neither pipelines nor files on disk.
"""
