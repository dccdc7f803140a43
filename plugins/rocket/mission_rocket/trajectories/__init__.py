"""Flights in the formats of other programs: CCSDS OEM and AEM, CZML, KML, and a table for RocketPy.

No phase imports these modules, so they are no part of the source hash of policies.
"""
