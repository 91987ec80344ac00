"""The class folders of the scene classification sets, spelled as they are distributed; here to be told apart, too."""

from __future__ import annotations


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


RESISC45 = _names(
    "airplane airport baseball_diamond basketball_court beach bridge chaparral church circular_farmland cloud "
    "commercial_area dense_residential desert forest freeway golf_course ground_track_field harbor industrial_area "
    "intersection island lake meadow medium_residential mobile_home_park mountain overpass palace parking_lot railway "
    "railway_station rectangular_farmland river roundabout runway sea_ice ship snowberg sparse_residential stadium "
    "storage_tank tennis_court terrace thermal_power_station wetland"
)
EUROSAT = _names(
    "AnnualCrop Forest HerbaceousVegetation Highway Industrial Pasture PermanentCrop Residential River SeaLake"
)
AID = _names(
    "Airport BareLand BaseballField Beach Bridge Center Church Commercial DenseResidential Desert Farmland Forest "
    "Industrial Meadow MediumResidential Mountain Park Parking Playground Pond Port RailwayStation Resort River "
    "School SparseResidential Square Stadium StorageTanks Viaduct"
)
UCM = _names(
    "agricultural airplane baseballdiamond beach buildings chaparral denseresidential forest freeway golfcourse "
    "harbor intersection mediumresidential mobilehomepark overpass parkinglot river runway sparseresidential "
    "storagetanks tenniscourt"
)
# assumed spelling of the folders; the class names are known
NASC_TG2 = _names(
    "beach circular_farmland cloud desert forest mountain rectangular_farmland residential river snowberg"
)
WHU_RS19 = _names(
    "Airport Beach Bridge Commercial Desert Farmland footballField Forest Industrial Meadow Mountain Park Parking "
    "Pond Port railwayStation Residential River Viaduct"
)
SIRI_WHU = _names(
    "agriculture commercial harbor idle_land industrial meadow overpass park pond residential river water"
)
FMOW = _names(
    "airport airport_hangar airport_terminal amusement_park aquaculture archaeological_site barn border_checkpoint "
    "burial_site car_dealership construction_site crop_field dam debris_or_rubble educational_institution "
    "electric_substation factory_or_powerplant fire_station flooded_road fountain gas_station golf_course "
    "ground_transportation_station helipad hospital impoverished_settlement interchange lake_or_pond lighthouse "
    "military_facility multi-unit_residential nuclear_powerplant office_building oil_or_gas_facility park "
    "parking_lot_or_garage place_of_worship police_station port prison race_track railway_bridge "
    "recreational_facility road_bridge runway shipyard shopping_mall single-unit_residential smokestack solar_farm "
    "space_facility stadium storage_tank surface_mine swimming_pool toll_booth tower tunnel_opening waste_disposal "
    "water_treatment_facility wind_farm zoo"
)

SCENE_SETS = (AID, RESISC45, EUROSAT, UCM, NASC_TG2, WHU_RS19, SIRI_WHU)
