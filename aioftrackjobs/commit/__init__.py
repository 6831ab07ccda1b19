"""Commits, from the recorded change to its outcome.

A :mod:`.unit_of_work` records :mod:`.changes` and submits them to the :mod:`.dispatcher` as a
:mod:`.request`. The :mod:`.order` holds requests back that have to wait for others, and a
:mod:`.lane` forms groups. The :mod:`.sender` sends a group by the :mod:`.api_client`; when it is
not known what the server has done, the :mod:`.reconciler` asks it.
"""
